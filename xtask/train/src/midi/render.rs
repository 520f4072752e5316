//! Renders arrangements with a General MIDI sound font.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};
use graft_material::audio_cache::Pcm;
use graft_material::audio_file;
use graft_material::loudness::{gated_rms, loudness_gain};
use rustysynth::{SoundFont, Synthesizer, SynthesizerSettings};

use super::arrange::{Arrangement, Message};
use super::clip_cache::Clip;

/// Paths at which systems install General MIDI sound fonts.
const SOUND_FONTS: [&str; 4] = [
    // Debian, Ubuntu: fluid-soundfont-gm.
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    // Fedora: fluid-soundfont-gm.
    "/usr/share/soundfonts/FluidR3_GM.sf2",
    // Arch: soundfont-fluid.
    "/usr/share/soundfonts/FluidR3_GM2-2.sf2",
    "/usr/share/soundfonts/default.sf2",
];

/// Oversampling of the synthesizer relative to the clip's sample rate, because the synthesizer aliases.
const OVERSAMPLING: u32 = 2;

/// Block size of the synthesizer, in samples at its rate. Messages take effect at block boundaries.
const BLOCK_SAMPLES: usize = 64;

/// Largest number of simultaneous voices. When it is exceeded, the quietest voice stops.
const MAX_VOICES: usize = 256;

/// Finds the sound font of this system.
///
/// # Errors
///
/// Returns an error if no sound font is installed; the error says how to get one.
pub fn find_sound_font() -> Result<PathBuf> {
    SOUND_FONTS
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .with_context(|| {
            format!(
                "MIDI files and notes need a General MIDI sound font; expected one of {}, found none.\n\
                 Debian, Ubuntu: sudo apt-get install fluid-soundfont-gm\n\
                 Fedora: sudo dnf install fluid-soundfont-gm\n\
                 Arch: sudo pacman -S soundfont-fluid",
                SOUND_FONTS.join(", ")
            )
        })
}

/// Identifies a version of the sound font: its path, size and modification time.
///
/// # Errors
///
/// Returns an error if the metadata of the file cannot be read.
pub fn sound_font_identity(path: &Path) -> Result<Vec<u8>> {
    let metadata = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    let modified = metadata.modified()?;
    let modified = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut identity = path.as_os_str().as_encoded_bytes().to_vec();
    identity.extend(metadata.len().to_le_bytes());
    identity.extend(modified.as_nanos().to_le_bytes());
    Ok(identity)
}

/// A synthesizer for clips of one length and sample rate. It can be shared by threads.
pub struct Renderer {
    font: Arc<SoundFont>,
    /// Length of a clip in samples, at the clip's rate.
    samples: usize,
    sample_rate_hz: u32,
}

impl Renderer {
    /// Loads a sound font. This takes about a second, and as much memory as the file size.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read.
    pub fn new(sound_font: &Path, seconds: f64, sample_rate_hz: u32) -> Result<Self> {
        let describe = || format!("cannot read the sound font {}", sound_font.display());
        let file = File::open(sound_font).with_context(describe)?;
        let font = SoundFont::new(&mut BufReader::new(file)).with_context(describe)?;
        Ok(Self {
            font: Arc::new(font),
            samples: (seconds * f64::from(sample_rate_hz)).round() as usize,
            sample_rate_hz,
        })
    }

    /// Renders an arrangement at all its transpositions, and its drums once. One gain applies to all stems; it
    /// normalises the loudness of the mix with the middle transposition.
    ///
    /// # Errors
    ///
    /// Returns an error if the mix is silent, or the synthesizer does not support the sample rate.
    pub fn clip(&self, arrangement: &Arrangement) -> Result<Clip> {
        let pitched = arrangement
            .semitones
            .iter()
            .map(|&semitones| {
                let messages = arrangement.pitched.iter();
                self.stem(messages.map(|message| message.transposed(semitones)))
            })
            .collect::<Result<Vec<_>>>()?;
        let middle = &pitched[pitched.len() / 2];

        let drums = self.stem(arrangement.drums.iter().cloned())?;
        let loudness = |stem| gated_rms(stem, self.sample_rate_hz);
        let drums_gain = match (loudness(&drums), loudness(middle)) {
            (Some(drums), Some(middle)) => {
                10f32.powf(arrangement.drum_level_db / 20.0) * middle / drums
            }
            _ => 1.0,
        };
        let mix: Vec<f32> = middle
            .iter()
            .zip(&drums)
            .map(|(middle, drums)| middle + drums_gain * drums)
            .collect();
        let gain = loudness_gain(&mix, self.sample_rate_hz)?;
        let pitched = pitched.iter().map(|stem| Pcm::amplified(stem, gain));
        Ok(Clip {
            pitched: arrangement.semitones.iter().copied().zip(pitched).collect(),
            drums: loudness(&drums).map(|_| Pcm::amplified(&drums, gain * drums_gain)),
        })
    }

    /// Renders a mono stem without reverb and chorus, so that the stems add up to the mix.
    ///
    /// # Errors
    ///
    /// Returns an error if the synthesizer does not support the sample rate.
    pub fn stem(&self, messages: impl Iterator<Item = Message>) -> Result<Vec<f32>> {
        let rate_hz = self.sample_rate_hz * OVERSAMPLING;
        let mut settings = SynthesizerSettings::new(rate_hz as i32);
        settings.block_size = BLOCK_SAMPLES;
        settings.maximum_polyphony = MAX_VOICES;
        settings.enable_reverb_and_chorus = false;
        let mut synthesizer = Synthesizer::new(&self.font, &settings)?;

        let mut messages = messages.peekable();
        let mut mono = vec![0.0; self.samples * OVERSAMPLING as usize];
        let (mut left, mut right) = ([0.0; BLOCK_SAMPLES], [0.0; BLOCK_SAMPLES]);
        for (index, block) in mono.chunks_mut(BLOCK_SAMPLES).enumerate() {
            let middle_s = (index as f64 + 0.5) * BLOCK_SAMPLES as f64 / f64::from(rate_hz);
            while let Some(message) = messages.next_if(|message| message.time_s <= middle_s) {
                synthesizer.process_midi_message(
                    message.channel.into(),
                    message.command.into(),
                    message.data1.into(),
                    message.data2.into(),
                );
            }
            synthesizer.render(&mut left, &mut right);
            for (sample, (left, right)) in block.iter_mut().zip(left.iter().zip(&right)) {
                *sample = left + right;
            }
        }
        audio_file::resample(&mono, rate_hz, self.sample_rate_hz)
    }
}
