//! Integrated loudness (ITU-R BS.1770-5, EBU R 128).

use anyhow::{Context, Result, ensure};
use ebur128::{EbuR128, Mode};
use model_runtime::AudioClip;

/// Softer blocks do not count.
pub const GATE_LUFS: f32 = -70.0;

/// Integrated loudness of a clip, in LUFS; [`GATE_LUFS`] if no block of 0.4 s is louder. A mono clip counts as one loudspeaker, so
/// it is 3 LU softer than the same clip on two.
///
/// # Errors
///
/// Returns an error if the clip has no channels, or channels of different lengths.
pub fn lufs(clip: &AudioClip) -> Result<f32> {
    let channels = u32::try_from(clip.channels.len())?;
    let samples = clip.channels.first().map_or(0, Vec::len);
    ensure!(
        clip.channels.iter().all(|channel| channel.len() == samples),
        "expected channels of one length"
    );
    let describe = || format!("cannot measure the loudness of {channels} channels");
    let mut meter = EbuR128::new(channels, clip.sample_rate_hz, Mode::I).with_context(describe)?;
    let planes: Vec<&[f32]> = clip.channels.iter().map(Vec::as_slice).collect();
    meter
        .add_frames_planar_f32(&planes)
        .with_context(describe)?;
    let lufs = meter.loudness_global().with_context(describe)? as f32;
    Ok(lufs.max(GATE_LUFS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(sample_rate_hz: u32, level_db: f32, channels: usize) -> AudioClip {
        let step = std::f32::consts::TAU * 1000.0 / sample_rate_hz as f32;
        let peak = 10f32.powf(level_db / 20.0);
        let samples = (0..20 * sample_rate_hz).map(|n| peak * (step * n as f32).sin());
        AudioClip {
            sample_rate_hz,
            channels: vec![samples.collect(); channels],
        }
    }

    // EBU Tech 3341, minimum requirements, test signals 1 and 2: a stereo sine of 1 kHz whose peaks are at -23 and -33 dBFS.
    #[test]
    fn sines_have_the_loudness_that_the_ebu_asks_for() {
        for rate_hz in [22_050, 48_000] {
            for level in [-23.0, -33.0] {
                let found = lufs(&sine(rate_hz, level, 2)).unwrap();
                assert!((found - level).abs() < 0.1, "{rate_hz} Hz: {found} {level}");
            }
        }
        let mono = lufs(&sine(22_050, -20.0, 1)).unwrap();
        assert!((mono + 23.0).abs() < 0.1, "{mono}");
    }

    #[test]
    fn pauses_do_not_count_and_silence_is_at_the_gate() {
        let mut clip = sine(22_050, -23.0, 2);
        for channel in &mut clip.channels {
            channel.extend(vec![0.0; 20 * 22_050]);
        }
        assert!((lufs(&clip).unwrap() + 23.0).abs() < 0.1);
        clip.channels
            .iter_mut()
            .for_each(|channel| channel.fill(0.0));
        assert_eq!(lufs(&clip).unwrap(), GATE_LUFS);
        clip.channels[1].pop();
        assert!(lufs(&clip).is_err());
    }
}
