//! What macOS wants of a bundle beyond the bundler's work: a name and a version of its own, and a signature.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Names the identity that signs bundles, as `codesign --sign` takes it. Without it, a bundle has a signature without an
/// identity ("ad hoc"), which loads on the machine that built it and, after the user's consent, on others.
const IDENTITY: &str = "GRAFT_CODESIGN_IDENTITY";

/// Describes and signs a finished bundle. `format` is the last part of its identifier.
///
/// # Errors
///
/// Returns an error if a file of the bundle cannot be written or the bundle cannot be signed.
pub fn finish(bundle: &Path, format: &str) -> Result<()> {
    let list = bundle.join("Contents/Info.plist");
    fs::write(&list, information(format, env!("CARGO_PKG_VERSION")))
        .with_context(|| format!("cannot write {}", list.display()))?;
    // Last: it covers all files of the bundle.
    let identity = env::var(IDENTITY)
        .ok()
        .filter(|identity| !identity.is_empty());
    let status = Command::new("codesign")
        .args(signing(identity.as_deref()))
        .arg(bundle)
        .status()
        .context("cannot start codesign")?;
    ensure!(
        status.success(),
        "cannot sign {}: codesign ended with {status}",
        bundle.display()
    );
    Ok(())
}

/// The options of codesign. Apple notarises only what has an identity, a time stamp and the hardened runtime.
fn signing(identity: Option<&str>) -> Vec<&str> {
    let mut options = vec!["--force", "--sign", identity.unwrap_or("-")];
    if identity.is_some() {
        options.extend(["--timestamp", "--options", "runtime"]);
    }
    options
}

/// The property list. The bundler writes one with an identifier and a version of its own, the same for both formats.
fn information(format: &str, version: &str) -> String {
    let entries = [
        ("CFBundleDevelopmentRegion", "en"),
        ("CFBundleDisplayName", "Graft"),
        ("CFBundleExecutable", "Graft"),
        ("CFBundleIdentifier", &format!("org.graft.graft.{format}")),
        ("CFBundleInfoDictionaryVersion", "6.0"),
        ("CFBundleName", "Graft"),
        ("CFBundlePackageType", "BNDL"),
        ("CFBundleShortVersionString", version),
        ("CFBundleSignature", "????"),
        ("CFBundleVersion", version),
    ];
    let entries: String = entries
        .iter()
        .map(|(key, text)| format!("    <key>{key}</key>\n    <string>{text}</string>\n"))
        .collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n  <dict>\n{entries}    <key>NSHighResolutionCapable</key>\n    <true/>\n  </dict>\n</plist>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_tells_its_format_and_version() {
        let clap = information("clap", "1.2.3");
        for entry in [
            "<key>CFBundleIdentifier</key>\n    <string>org.graft.graft.clap</string>",
            "<key>CFBundleVersion</key>\n    <string>1.2.3</string>",
            "<key>CFBundleShortVersionString</key>\n    <string>1.2.3</string>",
            "<key>CFBundlePackageType</key>\n    <string>BNDL</string>",
        ] {
            assert!(clap.contains(entry), "{clap}");
        }
        assert_eq!(clap.matches("<key>").count(), 11);
        assert_eq!(
            clap.matches("<string>").count(),
            clap.matches("</string>").count()
        );
        assert_ne!(clap, information("vst3", "1.2.3"));
    }

    #[test]
    fn only_an_identity_is_worth_a_time_stamp() {
        assert_eq!(signing(None), ["--force", "--sign", "-"]);
        let named = signing(Some("Developer ID Application: Someone"));
        assert_eq!(named[2], "Developer ID Application: Someone");
        assert!(named.contains(&"runtime") && named.contains(&"--timestamp"));
    }
}
