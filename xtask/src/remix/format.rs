//! The format of the output.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use graft_material::audio_writer::{AudioFormat, FlacFormat, WavFormat};

/// Formats by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// WAV, 32-bit floating point
    WavFloat,
    /// WAV, 16 bits
    Wav16,
    /// WAV, 24 bits
    Wav24,
    /// FLAC, 16 bits
    Flac16,
    /// FLAC, 24 bits
    Flac24,
}

impl FormatName {
    fn format(self) -> AudioFormat {
        match self {
            Self::WavFloat => AudioFormat::Wav(WavFormat::Float32),
            Self::Wav16 => AudioFormat::Wav(WavFormat::Pcm16),
            Self::Wav24 => AudioFormat::Wav(WavFormat::Pcm24),
            Self::Flac16 => AudioFormat::Flac(FlacFormat::Pcm16),
            Self::Flac24 => AudioFormat::Flac(FlacFormat::Pcm24),
        }
    }
}

/// The chosen format, or 32-bit WAV.
pub fn without_file(name: Option<FormatName>) -> AudioFormat {
    name.unwrap_or(FormatName::WavFloat).format()
}

/// The format of a file: the chosen one, which the extension has to fit, or one that the extension stands for.
///
/// # Errors
///
/// Returns an error if the extension does not fit.
pub fn of_file(name: Option<FormatName>, path: &Path) -> Result<AudioFormat> {
    let Some(name) = name else {
        return [FormatName::WavFloat, FormatName::Flac24]
            .map(FormatName::format)
            .into_iter()
            .find(|format| has_extension(path, format.extension()))
            .with_context(|| {
                format!(
                    "cannot write {}: the name must end in .wav or .flac",
                    path.display()
                )
            });
    };
    check_extension(path, name.format().extension())?;
    Ok(name.format())
}

/// Checks that a file name ends in `.extension`, in any case.
///
/// # Errors
///
/// Returns an error if it does not.
pub fn check_extension(path: &Path, extension: &str) -> Result<()> {
    ensure!(
        has_extension(path, extension),
        "cannot write {}: the name must end in .{extension}",
        path.display()
    );
    Ok(())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extension_stands_for_a_format_and_has_to_fit() {
        let float = AudioFormat::Wav(WavFormat::Float32);
        for (name, path, expected) in [
            (None, "remix.wav", Some(float)),
            (None, "remix.WAV", Some(float)),
            (
                None,
                "remix.flac",
                Some(AudioFormat::Flac(FlacFormat::Pcm24)),
            ),
            (
                Some(FormatName::Wav16),
                "a/remix.wav",
                Some(AudioFormat::Wav(WavFormat::Pcm16)),
            ),
            (Some(FormatName::Wav16), "remix.flac", None),
            (Some(FormatName::Flac16), "remix.wav", None),
            (None, "remix.mp3", None),
            (None, "remix", None),
            (None, ".wav", None),
        ] {
            let found = of_file(name, Path::new(path)).ok();
            assert_eq!(found, expected, "{name:?} {path}");
        }
        assert_eq!(without_file(None), float);
    }
}
