//! The table of artists in a folder of audio files.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::csv_table;

/// Name of the table. It has at least the columns `file` and `artist`.
const FILE: &str = "manifest.csv";

/// Artists by file name, in lower case, as the manifest in `folder` says; empty without a manifest.
///
/// # Errors
///
/// Returns an error that names the file and what was expected if it is not such a table.
pub fn read(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error.into()),
        Ok(bytes) => parse(&bytes),
    }
    .with_context(|| format!("cannot use the manifest {}", path.display()))
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let rows = csv_table::rows(bytes, ["file", "artist"])?.into_iter();
    let named = rows.filter(|[_, artist]| !artist.is_empty());
    Ok(named
        .map(|[file, artist]| (file, artist.to_lowercase()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artists_are_read_from_tables_as_programs_write_them() {
        let table = "file,title,artist\na.ogg,\"One, two\",Kim\nb.ogg,\"\"\"3\n\"\"\",KIM\nc.ogg,,\nd.ogg\n";
        let expected =
            BTreeMap::from([("a.ogg", "kim"), ("b.ogg", "kim")].map(|(a, b)| (a.into(), b.into())));
        for written in [
            table.to_owned(),
            format!("\u{feff}{table}"),
            table.replace('\n', "\r\n"),
            format!("\u{feff}{}", table.replace('\n', "\r\n")),
            table.replace(',', ";").replace("One; two", "One, two"),
            table.replace(',', "\t"),
            table.replace("file,", "file ,"),
        ] {
            assert_eq!(parse(written.as_bytes()).unwrap(), expected, "{written:?}");
        }
    }

    #[test]
    fn something_else_is_named_with_what_was_expected() {
        let utf_16: Vec<u8> = "file,artist\n"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let table = [
            "",
            "name,artist\na,b\n",
            "{\"file\": 1}",
            "file\na.wav\n",
            "\0\u{1}",
        ];
        let tables = table.iter().map(|text| text.as_bytes());
        for bytes in tables {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains("columns file and artist"), "{error}");
        }
        for bytes in [
            b"RIFF\xff\xfe\x00".as_slice(),
            b"file,artist\nM\xfcller.wav,x",
        ] {
            let error = parse(bytes).unwrap_err().to_string();
            assert!(error.contains("UTF-8"), "{error}");
        }
        // Some tables in UTF-16 are valid UTF-8, with a zero after each character.
        assert!(parse(&utf_16).is_err());
    }
}
