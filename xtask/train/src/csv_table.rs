//! Tables in CSV files, as spreadsheets and other programs write them.

use anyhow::{Context, Result};
use csv::{ReaderBuilder, Trim};

/// What separates columns; spreadsheets write the others in some languages.
const DELIMITERS: [u8; 3] = [b',', b';', b'\t'];

/// The fields in the given columns, row by row; a field that a short row lacks is empty. Other columns are passed over, a
/// byte-order mark is skipped, and lines may end in any way.
///
/// # Errors
///
/// Returns an error that says what was expected if the bytes are not a table with these columns.
pub fn rows<const N: usize>(bytes: &[u8], columns: [&str; N]) -> Result<Vec<[String; N]>> {
    let text = str::from_utf8(bytes).context("expected text in UTF-8")?;
    for delimiter in DELIMITERS {
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .flexible(true)
            .trim(Trim::Headers)
            .from_reader(text.as_bytes());
        let header = reader.headers()?.clone();
        let places = columns.map(|name| header.iter().position(|field| field == name));
        if places.iter().any(Option::is_none) {
            continue;
        }
        let rows = reader.records().map(|row| {
            let row = row?;
            Ok(places.map(|place| {
                let field = place.and_then(|place| row.get(place));
                field.unwrap_or_default().to_owned()
            }))
        });
        return rows.collect();
    }
    let first_line = text.lines().next().unwrap_or_default();
    let first_line: String = first_line.chars().take(60).collect();
    let (last, others) = columns.split_last().expect("a table has columns");
    anyhow::bail!(
        "expected the columns {} and {last}, found {first_line:?}",
        others.join(", ")
    )
}
