//! The table of artists in a folder of audio files.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};
use csv::{ReaderBuilder, Trim};

/// Name of the table. It has at least the columns `file` and `artist`.
const FILE: &str = "manifest.csv";

/// What separates columns; spreadsheets write the others in some languages.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

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

/// A byte-order mark is skipped, and lines may end in any way.
fn parse(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let text = str::from_utf8(bytes).context("expected text in UTF-8")?;
    for delimiter in DELIMITERS {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .trim(Trim::Headers)
            .from_reader(text.as_bytes());
        let header = reader.headers()?.clone();
        let column = |name| header.iter().position(|field| field == name);
        let (Some(file), Some(artist)) = (column("file"), column("artist")) else {
            continue;
        };
        let mut artists = BTreeMap::new();
        for row in reader.records() {
            let row = row?;
            if let (Some(file), Some(artist)) = (row.get(file), row.get(artist))
                && !artist.is_empty()
            {
                artists.insert(file.to_owned(), artist.to_lowercase());
            }
        }
        return Ok(artists);
    }
    let first_line: String = text
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(60)
        .collect();
    anyhow::bail!("expected the columns file and artist, found {first_line:?}")
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
