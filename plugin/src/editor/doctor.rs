//! The sidechain doctor: detects problems with the inputs and suggests a remedy.

use std::collections::VecDeque;
use std::f64::consts::TAU;

use model_runtime::LatencyMode;
use model_runtime::scope::{Lane, News};
use nice_plug::prelude::{Param, util};

use super::meter::to_db;
use crate::meters::{Meters, Pulse};
use crate::params::GraftParams;
use crate::params::ParamId;
use crate::setup::{Activation, Setup};

/// Inputs that are silent for longer than this are reported.
const SILENT_SECONDS: f64 = 2.0;

/// Largest accepted difference in loudness.
const LEVEL_DB: f32 = 9.0;

/// Largest accepted distance of onsets from the grid.
const GRID_MS: f64 = 18.0;

/// Grid steps per beat.
const GRID_STEPS: f64 = 4.0;

/// Number of onsets that are analysed.
const ONSETS: usize = 48;
const FEWEST_ONSETS: usize = 12;

/// Required agreement of the onsets on a distance from the grid: mean resultant length.
const AGREEMENT: f64 = 0.7;

/// An onset appears in the log-mel this many frames before it is in the middle of a frame, because the analysis window
/// reaches ahead.
const ONSET_LEAD_FRAMES: f64 = 0.8;
/// The same with the low-delay window of the network in Live.
const LOW_DELAY_ONSET_LEAD_FRAMES: f64 = 0.43;

/// Advice to the user.
#[derive(Clone, Debug, PartialEq)]
pub struct Advice {
    /// The text.
    pub text: String,
    /// The parameter to change, its new value, and the label of the button.
    pub remedy: Option<(String, ParamId, f32)>,
}

impl Advice {
    fn words(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            remedy: None,
        }
    }
}

/// What is known about the inputs.
#[derive(Default)]
pub struct Doctor {
    pulse: Pulse,
    main_seconds: f64,
    sidechain_seconds: f64,
    onsets: Onsets,
}

impl Doctor {
    /// Takes the new data from the worker.
    pub fn listen(&mut self, news: &News, activation: Option<&Activation>) {
        let frames_hz = activation.map_or(0.0, |activation| activation.frames_hz);
        let lead_frames = onset_lead_frames(activation.map(|activation| activation.setup));
        self.onsets.listen(news, frames_hz, lead_frames);
    }

    /// The advice at a time, if any.
    pub fn advice(
        &mut self,
        params: &GraftParams,
        meters: &Meters,
        now_seconds: f64,
    ) -> Option<Advice> {
        let engine = params.engine.value();
        let is_timbre = ParamId::Timbre.is_of(engine);
        let pause_seconds = self.pulse.pause_seconds(meters, now_seconds);
        let sounds = |peaks: [f32; 2]| peaks.iter().any(|&peak| peak > 0.0);
        let (main, sidechain) = (meters.main.peaks(), meters.sidechain.peaks());
        if sounds(main) {
            self.main_seconds = now_seconds;
        }
        if sounds(sidechain) {
            self.sidechain_seconds = now_seconds;
        }
        if pause_seconds > 1.0 {
            return Some(Advice::words("The host is not sending audio."));
        }
        if !meters.has_sidechain() {
            return Some(Advice::words(
                "No sidechain: route a second track to Graft’s sidechain.",
            ));
        }
        if now_seconds - self.sidechain_seconds > SILENT_SECONDS {
            let freezes = [
                ParamId::FreezeHarmony,
                ParamId::FreezeRhythm,
                ParamId::FreezeTimbre,
            ];
            let is_on = |id: &ParamId| id.is_of(engine) && id.of(params).value() >= 0.5;
            return Some(Advice::words(match freezes.iter().any(is_on) {
                true if is_timbre => "The sidechain is silent: the frozen colour plays on.",
                true => "The sidechain is silent: only frozen loops play on.",
                false => "The sidechain is silent: passing the main input through.",
            }));
        }
        if now_seconds - self.main_seconds > SILENT_SECONDS {
            return Some(Advice::words("The main input is silent."));
        }
        // A colour has neither level nor rhythm.
        match is_timbre {
            true => None,
            false => levels(params, meters).or_else(|| self.grid()),
        }
    }

    fn grid(&self) -> Option<Advice> {
        let off_ms = self.onsets.off_grid_ms()?;
        let which = if off_ms > 0.0 { "behind" } else { "ahead of" };
        (off_ms.abs() >= GRID_MS).then(|| {
            let ms = off_ms.abs();
            Advice::words(format!(
                "The sidechain is about {ms:.0} ms {which} the grid."
            ))
        })
    }
}

/// Checks whether one input is much louder than the other, after their gains.
fn levels(params: &GraftParams, meters: &Meters) -> Option<Advice> {
    let (main, sidechain) = (meters.main.mean_square(), meters.sidechain.mean_square());
    if main == 0.0 || sidechain == 0.0 {
        return None;
    }
    let main_db = 0.5 * to_db(main) + to_db(params.main_gain.value());
    let sidechain_gain_db = to_db(params.sidechain_gain.value());
    let sidechain_db = 0.5 * to_db(sidechain) + sidechain_gain_db;
    let louder_db = sidechain_db - main_db;
    if louder_db.abs() < LEVEL_DB {
        return None;
    }
    let which = if louder_db > 0.0 { "louder" } else { "softer" };
    let text = format!(
        "The sidechain is {:.0} dB {which} than the main input.",
        louder_db.abs()
    );
    let wanted_db = (sidechain_gain_db - louder_db).clamp(-60.0, 12.0);
    let value = params
        .sidechain_gain
        .preview_normalized(util::db_to_gain(wanted_db));
    let remedy = (
        format!("Set to {wanted_db:+.1} dB"),
        ParamId::SidechainGain,
        value,
    );
    Some(Advice {
        text,
        remedy: Some(remedy),
    })
}

fn onset_lead_frames(setup: Option<Setup>) -> f64 {
    let has_low_delay =
        setup.is_some_and(|s| s.engine.has_latents() && s.mode == LatencyMode::Live);
    match has_low_delay {
        true => LOW_DELAY_ONSET_LEAD_FRAMES,
        false => ONSET_LEAD_FRAMES,
    }
}

/// Onsets in the sidechain, with their positions on the host's beat grid.
#[derive(Default)]
struct Onsets {
    /// The log-mel of the last frame.
    last_values: Vec<u8>,
    /// The rise of the last three frames, with their positions in beats.
    rises: VecDeque<(f64, f64, f64)>,
    mean_rise: f64,
    /// Positions in beats, with the beats per second there.
    onsets: VecDeque<(f64, f64)>,
    last_frame: u64,
}

impl Onsets {
    fn listen(&mut self, news: &News, frames_hz: f64, lead_frames: f64) {
        let columns = news.columns.iter().filter(|c| c.lane == Lane::Sidechain);
        for (column, (frame, beat)) in columns.zip(&news.beats) {
            let goes_on = column.frame == *frame && self.last_frame + 1 == *frame && beat.is_host;
            self.last_frame = *frame;
            if !goes_on {
                self.last_values.clear();
                self.rises.clear();
            }
            if !beat.is_host {
                self.onsets.clear();
                continue;
            }
            let pairs = column.values.iter().zip(&self.last_values);
            let rise = pairs.map(|(now, before)| f64::from(now.saturating_sub(*before)));
            let rise = rise.sum::<f64>();
            self.last_values.clone_from(&column.values);
            self.rises
                .push_back((rise, beat.position_beats, beat.beats_per_sample));
            self.mean_rise += 0.01 * (rise - self.mean_rise);
            self.find(frames_hz, lead_frames);
        }
    }

    /// Checks whether the middle one of the last three frames is an onset.
    fn find(&mut self, frames_hz: f64, lead_frames: f64) {
        if self.rises.len() < 3 {
            return;
        }
        let (before, now, after) = (self.rises[0], self.rises[1], self.rises[2]);
        self.rises.pop_front();
        if now.0 <= before.0 || now.0 < after.0 || now.0 < 2.0 * self.mean_rise {
            return;
        }
        let frame_beats = after.1 - now.1;
        if frame_beats <= 0.0 {
            return;
        }
        // The vertex of a parabola through the three values.
        let bend = before.0 - 2.0 * now.0 + after.0;
        let top = if bend < 0.0 {
            0.5 * (before.0 - after.0) / bend
        } else {
            0.0
        };
        let place = now.1 + (top + 0.5 + lead_frames) * frame_beats;
        if self.onsets.len() == ONSETS {
            self.onsets.pop_front();
        }
        self.onsets.push_back((place, frame_beats * frames_hz));
    }

    /// How late the onsets are relative to the grid, if they agree.
    fn off_grid_ms(&self) -> Option<f64> {
        if self.onsets.len() < FEWEST_ONSETS {
            return None;
        }
        let count = self.onsets.len() as f64;
        let angles = self
            .onsets
            .iter()
            .map(|(place, _)| TAU * GRID_STEPS * place);
        let (x, y) = angles.fold((0.0, 0.0), |(x, y), angle| {
            (x + angle.cos() / count, y + angle.sin() / count)
        });
        let beats_hz = self.onsets.back()?.1;
        let off_seconds = y.atan2(x) / TAU / GRID_STEPS / beats_hz;
        (x.hypot(y) >= AGREEMENT).then_some(1000.0 * off_seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model_runtime::scope::Scope;
    use model_runtime::transport::Beat;
    use model_runtime::worker::WindowProcessor;
    use model_runtime::{Controls, Model, RemixStream, StreamSettings, Voice, Window};
    use test_signals::Noise;

    use super::*;
    use crate::engines::Engine;

    const RATE_HZ: u32 = 44_100;
    const BPM: f64 = 127.0;

    /// The result after 10 s of sidechain; `onset(beats)` returns the time since the last hit, in beats.
    fn examine(mode: LatencyMode, last_hit: impl Fn(f64) -> f64) -> Option<f64> {
        let settings = StreamSettings {
            sample_rate_hz: RATE_HZ,
            voice: Voice::Guided,
            mode,
        };
        let scope = Arc::new(Scope::default());
        scope.watch(true);
        let model = Model::built_in().unwrap();
        let mut stream = RemixStream::new(&model, settings)
            .unwrap()
            .with_scope(Arc::clone(&scope));
        let frames_hz = Engine::frames_hz(&model);
        let lead_frames = onset_lead_frames(Some(Setup {
            engine: Engine::Network,
            mode,
            model_version: 0,
        }));
        let mut onsets = Onsets::default();
        let (samples, interval) = (1024, 64);
        let beats_per_sample = BPM / 60.0 / f64::from(RATE_HZ);
        let mut noise = Noise::new(1);
        for number in 0..430 {
            let mut window = Window::new(samples, interval);
            let start = number * samples;
            window.stream_position_samples = start as u64;
            for i in 0..samples {
                let beats = (start + i) as f64 * beats_per_sample;
                let noise = f64::from(noise.sample());
                let hit = noise * (-last_hit(beats) * 12.0).exp();
                for side in 0..2 {
                    window.sidechain[side][i] = hit as f32;
                    window.main[side][i] = 0.1 * noise as f32;
                }
                if i % interval == 0 {
                    window.controls[i / interval] = Controls {
                        beat: Beat {
                            position_beats: beats,
                            beats_per_sample,
                            is_host: true,
                        },
                        ..Controls::default()
                    };
                }
            }
            let mut remix = [vec![0.0; samples], vec![0.0; samples]];
            let [left, right] = &mut remix;
            stream.process(&window, [left, right]).unwrap();
            onsets.listen(&scope.take(), frames_hz, lead_frames);
        }
        onsets.off_grid_ms()
    }

    fn off(ms: f64) -> impl Fn(f64) -> f64 {
        let beats = ms / 1000.0 * BPM / 60.0;
        move |at| 0.5 * (2.0 * (at - beats)).rem_euclid(1.0)
    }

    #[test]
    fn hits_off_the_grid_are_told_by_how_much() {
        for mode in [LatencyMode::Live, LatencyMode::Default] {
            for ms in [-40.0, 0.0, 30.0] {
                let told = examine(mode, off(ms)).expect("regular hits are sure");
                println!("{mode:?}, {ms} ms: {told:.1} ms");
                assert!((told - ms).abs() < 6.0, "{mode:?}, {ms} ms: {told:.1} ms");
            }
        }
    }

    #[test]
    fn hits_without_a_grid_are_not_judged() {
        // Five hits per three beats.
        let five_per_three = |at: f64| 0.6 * (at / 0.6).rem_euclid(1.0);
        assert_eq!(examine(LatencyMode::Live, five_per_three), None);
    }
}
