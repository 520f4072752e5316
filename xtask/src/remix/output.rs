//! Where a remix is written.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use graft_material::audio_writer::{AudioFormat, AudioSpec, AudioWriter, WavFormat};

use super::messages::Messages;

/// Where a remix is written, and how.
pub enum Output {
    /// A file.
    File(PathBuf, AudioFormat),
    /// Standard output, as WAV.
    Stdout(WavFormat),
}

impl Output {
    /// Standard output.
    ///
    /// # Errors
    ///
    /// Returns an error if it is a terminal, or the format is not WAV.
    pub fn stdout(format: AudioFormat) -> Result<Self> {
        let AudioFormat::Wav(format) = format else {
            bail!("-o - writes WAV: expected a --format that begins with wav");
        };
        ensure!(
            !io::stdout().is_terminal(),
            "-o - writes sound to standard output: expected a pipe or a file, found a terminal"
        );
        Ok(Self::Stdout(format))
    }

    /// The file, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::File(path, _) => Some(path),
            Self::Stdout(_) => None,
        }
    }

    /// Starts writing. `expected_samples` is the length of the remix, if known.
    ///
    /// # Errors
    ///
    /// Returns an error if the output cannot be written or does not hold such samples.
    pub fn start(
        &self,
        sample_rate_hz: u32,
        channels: usize,
        expected_samples: Option<u64>,
    ) -> Result<Writing<'_>> {
        let writer = match self {
            Self::File(path, format) => {
                let spec = AudioSpec {
                    sample_rate_hz,
                    channels,
                    format: *format,
                };
                AudioWriter::create(path, spec, expected_samples)?
            }
            Self::Stdout(format) => {
                AudioWriter::pipe(io::stdout(), sample_rate_hz, channels, *format)
                    .context(self.context())?
            }
        };
        Ok(Writing {
            output: self,
            writer,
        })
    }

    fn context(&self) -> String {
        match self {
            Self::File(path, _) => format!("cannot write {}", path.display()),
            Self::Stdout(_) => "cannot write to standard output".into(),
        }
    }
}

/// An output that is being written. Without [`finish`](Self::finish), no file appears.
pub struct Writing<'a> {
    output: &'a Output,
    writer: AudioWriter,
}

impl Writing<'_> {
    /// Writes the next samples, one vector per channel.
    ///
    /// # Errors
    ///
    /// Returns an error if they cannot be written.
    pub fn push(&mut self, channels: &[Vec<f32>]) -> Result<()> {
        self.writer
            .push(channels)
            .with_context(|| self.output.context())
    }

    /// Completes the output and names it.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be written.
    pub fn finish(self, messages: &Messages) -> Result<()> {
        let clipped = self
            .writer
            .finish()
            .with_context(|| self.output.context())?;
        let name = match self.output {
            Output::File(path, _) => path.display().to_string(),
            Output::Stdout(_) => "standard output".into(),
        };
        if clipped > 0 {
            messages.note(format_args!(
                "warning: {name}: clipped {clipped} samples at full scale; --format wav-float keeps them"
            ));
        }
        if let Output::File(..) = self.output {
            messages.result(name);
        }
        Ok(())
    }
}
