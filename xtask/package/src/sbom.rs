//! The bill of materials: a CycloneDX file that lists the crates in Graft, for tools that look up known faults.

use anyhow::Result;
use serde_json::{Value, json};

use crate::crates::Crate;
use crate::release::Release;

/// The bill of materials of a release (CycloneDX 1.5, JSON).
///
/// # Errors
///
/// Returns an error if it cannot be written as text.
pub fn text(release: &Release, crates: &[Crate]) -> Result<String> {
    let graft = format!("pkg:generic/graft@{}", release.version);
    let components: Vec<Value> = crates.iter().map(component).collect();
    let purls: Vec<Value> = crates.iter().map(|package| json!(purl(package))).collect();
    // Without a serial number and a time: the same sources give the same file.
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "bom-ref": graft,
                "name": "graft",
                "version": release.version,
                "licenses": [{ "expression": "MIT OR Apache-2.0" }],
            },
        },
        "components": components,
        "dependencies": [{ "ref": graft, "dependsOn": purls }],
    });
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

fn component(package: &Crate) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": package.name,
        "version": package.version,
        "purl": purl(package),
        // Old crates write "/" for "OR".
        "licenses": [{ "expression": package.licence.replace(" / ", "/").replace('/', " OR ") }],
    });
    if let Some(sha256) = &package.sha256 {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    component
}

fn purl(package: &Crate) -> String {
    // "+" in a version is written as in a web address.
    let version = package.version.replace('+', "%2B");
    format!("pkg:cargo/{}@{version}", package.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_crate_is_listed_with_its_checksum() {
        let release = Release {
            version: "1.2.3".into(),
            time_seconds: 0,
            system: "x86_64-linux",
        };
        let package = Crate {
            name: "one".into(),
            version: "0.1.0+2".into(),
            licence: "MIT / Apache-2.0".into(),
            authors: Vec::new(),
            repository: None,
            sha256: Some("ab".into()),
            folder: "".into(),
            licence_file: None,
        };
        let bill: Value = serde_json::from_str(&text(&release, &[package]).unwrap()).unwrap();
        let component = &bill["components"][0];
        assert_eq!(component["purl"], "pkg:cargo/one@0.1.0%2B2");
        assert_eq!(component["hashes"][0]["content"], "ab");
        assert_eq!(component["licenses"][0]["expression"], "MIT OR Apache-2.0");
        let dependencies = &bill["dependencies"][0];
        assert_eq!(
            dependencies["ref"],
            bill["metadata"]["component"]["bom-ref"]
        );
        assert_eq!(dependencies["dependsOn"][0], component["bom-ref"]);
    }
}
