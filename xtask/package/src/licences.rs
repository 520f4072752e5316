//! The licences of the third-party software in Graft: one text, which is shown in the editor's About.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use graft_material::workspace;
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};

use crate::crates::Crate;

/// The text, in the repository, so that a build needs neither this program nor the sources of all systems' crates.
pub const FILE: &str = "assets/third-party-licences.txt";

/// Longest line, in characters: what the editor shows without wrapping.
const LINE: usize = 100;

const APACHE: &str = "Apache-2.0";

/// Beginnings of the names of files with licences and notices.
const NAMES: [&str; 6] = [
    "license",
    "licence",
    "copying",
    "copyright",
    "notice",
    "unlicense",
];

#[derive(Deserialize)]
struct DenyFile {
    licenses: AcceptedLicences,
}

#[derive(Deserialize)]
struct AcceptedLicences {
    allow: Vec<String>,
}

/// The licences that the project accepts, from `deny.toml`; of several that a crate offers, the first counts.
///
/// # Errors
///
/// Returns an error if the file cannot be read or names an unknown licence.
pub fn accepted() -> Result<Vec<Licensee>> {
    let path = workspace::root().join("deny.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file: DenyFile =
        toml::from_str(&text).with_context(|| format!("cannot parse {}", path.display()))?;
    let names = file.licenses.allow.iter();
    names
        .map(|name| Licensee::parse(name).with_context(|| format!("{}: {name}", path.display())))
        .collect()
}

/// The text for these crates.
///
/// # Errors
///
/// Returns an error if a crate has no accepted licence, or if a file cannot be read.
pub fn text(crates: &[Crate], accepted: &[Licensee]) -> Result<String> {
    let mut used: BTreeMap<&str, (BTreeSet<String>, Option<&str>)> = BTreeMap::new();
    // From a text to those whose text it is.
    let mut texts: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for package in crates {
        let chosen = chosen(package, accepted)?;
        for text in texts_of(package, &chosen)? {
            texts.entry(text).or_default().insert(&package.name);
        }
        let (licences, repository) = used.entry(&package.name).or_default();
        licences.extend(chosen);
        *repository = package.repository.as_deref();
    }
    let fonts = workspace::root().join("assets/fonts/Inter-LICENSE.txt");
    used.insert(
        "Inter",
        (["OFL-1.1".to_owned()].into(), Some("https://rsms.me/inter")),
    );
    texts.entry(read(&fonts)?).or_default().insert("Inter");
    used.insert(
        "Rust’s standard library",
        (
            [APACHE.to_owned()].into(),
            Some("https://github.com/rust-lang/rust"),
        ),
    );
    let apache = standard(APACHE)?;
    texts
        .entry(apache)
        .or_default()
        .insert("Rust’s standard library");

    let mut file = String::from(
        "Graft contains the works of others that are listed here, with the licences under which it\n\
         uses them. Some are part of it only on some systems, or only of the standalone program.\n\n",
    );
    for (name, (licences, repository)) in used {
        let licences: Vec<String> = licences.into_iter().collect();
        let licences = licences.join(" and ");
        let repository = repository.unwrap_or_default();
        writeln!(
            file,
            "{}",
            format!("{name}: {licences}. {repository}").trim()
        )?;
    }
    let mut texts: Vec<(String, BTreeSet<&str>)> = texts.into_iter().collect();
    texts.sort_by(|(a, for_a), (b, for_b)| {
        for_b
            .len()
            .cmp(&for_a.len())
            .then_with(|| for_a.cmp(for_b))
            .then_with(|| a.cmp(b))
    });
    for (text, names) in texts {
        let names: Vec<&str> = names.into_iter().collect();
        writeln!(file, "\n{}", "_".repeat(60))?;
        writeln!(file, "{}\n", wrapped(&format!("For {}:", names.join(", "))))?;
        writeln!(file, "{}", wrapped(&text))?;
    }
    Ok(file)
}

/// The licences under which Graft uses a crate.
fn chosen(package: &Crate, accepted: &[Licensee]) -> Result<Vec<String>> {
    let Crate {
        name,
        version,
        licence,
        ..
    } = package;
    // Old crates write "/" for "OR".
    let expression = Expression::parse_mode(licence, ParseMode::LAX);
    let expression =
        expression.with_context(|| format!("{name} {version}: cannot parse its licence"))?;
    let chosen = expression.minimized_requirements(accepted);
    let chosen = chosen.with_context(|| {
        format!("{name} {version}: expected a licence that deny.toml allows, found {licence}")
    })?;
    Ok(chosen.iter().map(ToString::to_string).collect())
}

/// The texts that must come with a crate that is used under these licences.
fn texts_of(package: &Crate, licences: &[String]) -> Result<Vec<String>> {
    let mut files = licence_files(&package.folder)?;
    files.extend(package.licence_file.clone());
    // The Apache licence is one text for all, and asks for no more than notices.
    let (apache, others): (Vec<_>, Vec<_>) = licences.iter().partition(|name| **name == APACHE);
    files.retain(|file| match others[..] {
        [] => name(file).starts_with("notice"),
        _ => !name(file).contains("apache"),
    });
    let mut texts = BTreeSet::new();
    for licence in apache {
        texts.insert(standard(licence)?);
    }
    for file in &files {
        texts.insert(read(file)?);
    }
    if files.is_empty() {
        let authors = match package.authors.is_empty() {
            true => format!("the authors of {}", package.name),
            false => package.authors.join(", "),
        };
        let name = &package.name;
        for licence in others {
            let text = standard(licence)?;
            texts.insert(format!("{name} is the work of {authors}.\n\n{text}"));
        }
    }
    Ok(texts.into_iter().collect())
}

/// Files with licences and notices in a folder, sorted.
fn licence_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> std::io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = name(&path);
            if path.is_file() && NAMES.iter().any(|begin| name.starts_with(begin)) {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    };
    list().with_context(|| format!("cannot read {}", folder.display()))
}

/// The name of a file in small letters.
fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().to_lowercase()
}

/// The text of a licence in the list of SPDX.
fn standard(licence: &str) -> Result<String> {
    let id = spdx::license_id(licence);
    let id = id.with_context(|| format!("expected a licence of SPDX, found {licence}"))?;
    Ok(tidy(id.text()))
}

fn read(path: &Path) -> Result<String> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(tidy(&text))
}

/// The text without what does not show: ends of lines are `\n`, with no blanks before them and no empty lines around.
fn tidy(text: &str) -> String {
    let lines = text.trim_start_matches('\u{feff}').lines();
    let lines: Vec<&str> = lines.map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// The text with long lines broken at blanks.
fn wrapped(text: &str) -> String {
    let mut file = String::new();
    for line in text.lines() {
        let mut length = 0;
        for (index, word) in line.split(' ').enumerate() {
            let word_length = word.chars().count();
            if index > 0 && length + 1 + word_length > LINE {
                file.push('\n');
                length = 0;
            } else if index > 0 {
                file.push(' ');
                length += 1;
            }
            file.push_str(word);
            length += word_length;
        }
        file.push('\n');
    }
    file.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use graft_material::testing::TestFolder;

    use super::*;
    use crate::crates;

    fn package(name: &str, licence: &str, folder: &Path) -> Crate {
        Crate {
            name: name.into(),
            version: "1.0.0".into(),
            licence: licence.into(),
            authors: vec!["Ada".into()],
            repository: None,
            sha256: None,
            folder: folder.into(),
            licence_file: None,
        }
    }

    #[test]
    fn the_file_in_the_repository_is_up_to_date() {
        let wanted = text(&crates::linked().unwrap(), &accepted().unwrap()).unwrap();
        let path = workspace::root().join(FILE);
        if std::env::var_os("GRAFT_WRITE_LICENCES").is_some() {
            fs::write(&path, &wanted).unwrap();
        }
        // Git may check it out with other ends of lines.
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found.replace("\r\n", "\n") == wanted,
            "{FILE} is not what the crates in Cargo.lock ask for; GRAFT_WRITE_LICENCES=1 writes it"
        );
    }

    #[test]
    fn the_first_accepted_licence_counts() {
        let accepted: Vec<Licensee> = ["Apache-2.0", "MIT", "Unicode-3.0"]
            .iter()
            .map(|name| Licensee::parse(name).unwrap())
            .collect();
        let choose = |licence| chosen(&package("a", licence, Path::new("")), &accepted);
        for (licence, expected) in [
            ("MIT OR Apache-2.0", vec!["Apache-2.0"]),
            ("MIT/Apache-2.0", vec!["Apache-2.0"]),
            ("MIT OR GPL-3.0-only", vec!["MIT"]),
            (
                "(MIT OR Apache-2.0) AND Unicode-3.0",
                vec!["Apache-2.0", "Unicode-3.0"],
            ),
        ] {
            assert_eq!(choose(licence).unwrap(), expected, "{licence}");
        }
        let error = choose("GPL-3.0-only").unwrap_err().to_string();
        assert!(error.contains("found GPL-3.0-only"), "{error}");
    }

    #[test]
    fn notices_and_copyrights_come_along() {
        let folder = TestFolder::new("licences");
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let none = package("bare", "MIT", folder.path());
        let [text] = &texts_of(&none, &["MIT".into()]).unwrap()[..] else {
            panic!("expected one text");
        };
        assert!(text.starts_with("bare is the work of Ada.\n\n"), "{text}");
        assert!(text.contains("Permission is hereby granted"), "{text}");

        write("LICENSE-MIT", "Copyright Ada\r\n");
        write("NOTICE.txt", "\nBy Ada.  \n");
        write("lib.rs", "");
        let both = package("both", "MIT OR Apache-2.0", folder.path());
        let texts = texts_of(&both, &["MIT".into()]).unwrap();
        assert_eq!(texts, ["By Ada.", "Copyright Ada"]);
        let texts = texts_of(&both, &[APACHE.into()]).unwrap();
        assert_eq!(texts, [standard(APACHE).unwrap(), "By Ada.".into()]);
        write("LICENSE-APACHE", "Apache License\n");
        let texts = texts_of(&both, &[APACHE.into(), "MIT".into()]).unwrap();
        let expected = ["By Ada.", "Copyright Ada"].map(String::from);
        assert_eq!(texts[1..], expected);
        assert_eq!(texts[0], standard(APACHE).unwrap());
    }

    #[test]
    fn long_lines_are_broken() {
        let long = format!("{} {}", "a".repeat(60), "b".repeat(60));
        let broken = format!("{}\n{}", "a".repeat(60), "b".repeat(60));
        assert_eq!(wrapped(&long), broken);
        assert_eq!(wrapped("  as it\nwas"), "  as it\nwas");
    }
}
