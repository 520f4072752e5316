//! The report as a static web page.

use std::fmt::Write as _;

use graft_material::report::{Check, Example, Picture, Report, Row, Table, show};

/// The page as HTML. The files that it references lie in the same folder.
pub fn html(report: &Report) -> String {
    let mut page = String::from(HEAD);
    write_models(&mut page, report);
    if !report.examples.is_empty() {
        page.push_str("<h2>Examples</h2>");
    }
    for example in &report.examples {
        write_example(&mut page, example);
    }
    for table in &report.tables {
        write_table(&mut page, table);
    }
    if !report.checks.is_empty() {
        write_checks(&mut page, &report.checks);
    }
    if !report.pictures.is_empty() {
        page.push_str("<h2>Pictures</h2>");
    }
    for picture in &report.pictures {
        write_picture(&mut page, picture);
    }
    page.push_str("</body></html>\n");
    page
}

fn write_models(page: &mut String, report: &Report) {
    let _ = write!(
        page,
        "<h1>Evaluation</h1><p>{}</p><ul>",
        escape(&report.protocol)
    );
    for model in &report.models {
        let _ = write!(
            page,
            "<li>{}: {} training steps</li>",
            escape(&model.name),
            model.steps
        );
    }
    page.push_str("</ul>");
}

fn write_example(page: &mut String, example: &Example) {
    let _ = write!(
        page,
        "<h3>{}</h3><div class=\"sounds\">",
        escape(&example.name)
    );
    for sound in &example.sounds {
        let _ = write!(
            page,
            "<figure><figcaption>{0}</figcaption><img src=\"{1}\" alt=\"Log-mel of {0}\">\
             <audio controls preload=\"none\" src=\"{2}\"></audio></figure>",
            escape(&sound.name),
            escape(&sound.picture),
            escape(&sound.sound)
        );
    }
    page.push_str("</div>");
}

fn write_table(page: &mut String, table: &Table) {
    let _ = write!(
        page,
        "<h2>{}</h2><p>{}</p><table><tr><th></th>",
        escape(&table.title),
        escape(&table.note)
    );
    for column in &table.columns {
        let _ = write!(page, "<th>{}</th>", escape(column));
    }
    for Row { name, cells } in &table.rows {
        let _ = write!(page, "</tr><tr><th>{}</th>", escape(name));
        for cell in cells {
            let _ = write!(page, "<td>{}</td>", show(cell));
        }
    }
    page.push_str("</tr></table>");
}

fn write_checks(page: &mut String, checks: &[Check]) {
    page.push_str("<h2>Checks</h2><table><tr><th>check</th><th>found</th><th>result</th></tr>");
    for check in checks {
        let holds = if check.holds { "yes" } else { "<b>no</b>" };
        let (name, found) = (escape(&check.name), escape(&check.found));
        let _ = write!(
            page,
            "<tr><th>{name}</th><td>{found}</td><td>{holds}</td></tr>"
        );
    }
    page.push_str("</table>");
}

fn write_picture(page: &mut String, picture: &Picture) {
    let (file, caption) = (escape(&picture.file), escape(&picture.caption));
    let _ = write!(
        page,
        "<figure><img src=\"{file}\" alt=\"{caption}\"><figcaption>{caption}</figcaption></figure>"
    );
}

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Graft: evaluation</title>\
<meta name=\"viewport\" content=\"width=device-width\"><style>\
body{font:16px/1.45 system-ui,sans-serif;max-width:1240px;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
table{border-collapse:collapse;font-size:14px;display:block;overflow-x:auto}\
th,td{text-align:left;padding:.3em .7em;border-bottom:1px solid #ddd;font-weight:normal}\
figure{margin:1em 0}img{max-width:100%}figcaption{font-size:14px;color:#555}\
.sounds{display:grid;grid-template-columns:repeat(auto-fill,minmax(380px,1fr));gap:1em}\
.sounds figure{margin:0}audio{width:100%}</style></head><body>";

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use graft_material::testing::small_report as small;

    #[test]
    fn the_page_has_everything_and_escapes_names() {
        let page = html(&small(0.5));
        assert!(
            page.contains("src=\"a.wav\"") && page.contains("src=\"a.png\""),
            "{page}"
        );
        assert!(
            page.contains("&lt;it&gt;") && !page.contains("<it>"),
            "{page}"
        );
        assert!(
            page.contains("<td>0.500 [0.400, 0.600]</td><td>-</td>"),
            "{page}"
        );
        for tag in ["table", "tr", "div", "figure"] {
            let opened = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
