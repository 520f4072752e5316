//! The shared libraries that a program needs, as its ELF file tells.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use goblin::elf::Elf;

/// From the name of a library to the newest version of its interface that is needed, such as `GLIBC_2.34`; none for
/// libraries without versions.
pub type Needs = BTreeMap<String, Option<String>>;

/// What a program or shared library needs.
///
/// # Errors
///
/// Returns an error if `file` is not an ELF file.
pub fn of(file: &[u8]) -> Result<Needs> {
    let elf = Elf::parse(file).context("expected an ELF file")?;
    let mut needs: Needs = elf
        .libraries
        .iter()
        .map(|name| ((*name).to_owned(), None))
        .collect();
    for library in elf.verneed.iter().flatten() {
        let name = elf.dynstrtab.get_at(library.vn_file);
        let newest = needs
            .entry(name.context("expected a library with a name")?.to_owned())
            .or_default();
        for version in library.iter() {
            let version = elf.dynstrtab.get_at(version.vna_name);
            let version = version.context("expected a version with a name")?;
            if newest
                .as_deref()
                .is_none_or(|newest| is_newer(version, newest))
            {
                *newest = Some(version.to_owned());
            }
        }
    }
    Ok(needs)
}

/// Whether a version has larger numbers than another.
pub fn is_newer(version: &str, other: &str) -> bool {
    let numbers = |version: &str| -> Vec<u32> {
        let words = version.split(|letter: char| !letter.is_ascii_digit());
        words.filter_map(|word| word.parse().ok()).collect()
    };
    numbers(version) > numbers(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_newer("GLIBC_2.34", "GLIBC_2.4"));
        assert!(is_newer("GLIBC_2.2.5", "GLIBC_2.2"));
        assert!(!is_newer("GLIBC_2.4", "GLIBC_2.34"));
        assert!(is_newer("ALSA_0.9.0rc4", "ALSA_0.9"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_program_needs_the_library_of_c() {
        let file = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let needs = of(&file).unwrap();
        let version = needs["libc.so.6"].as_deref().unwrap();
        assert!(version.starts_with("GLIBC_2."), "{version}");
        assert!(of(b"#!/bin/sh").is_err());
    }
}
