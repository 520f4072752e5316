//! Recipes for the pitch and timbre of a single frame (Luo et al., "Unsupervised Disentanglement of Pitch and Timbre for Isolated
//! Musical Instrument Sounds", ISMIR 2020).

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;

use super::optimiser::Optimiser;
use crate::luo::network::LuoConfig;
use crate::notes::NotesConfig;

/// A recipe for pitch and timbre of a single frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LuoRecipe {
    /// Name of the model.
    pub name: String,
    /// Sizes of the network.
    pub luo: LuoConfig,
    /// The mel spectrogram of the frame.
    pub mel: MelConfig,
    /// The notes.
    pub notes: NotesConfig,
    /// Choice of frames.
    pub frames: Frames,
    /// Weights of the losses.
    pub loss: LuoLoss,
    /// Temperature of the samples of pitch.
    pub temperature: Temperature,
    /// Training ends when the validation loss was not better for this many epochs.
    pub patience_epochs: u64,
    /// Settings of the optimiser.
    pub optimiser: Optimiser,
}

/// Choice of frames.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frames {
    /// Seed of all random numbers but those of the notes.
    pub seed: u64,
    /// Notes in a step.
    pub batch: usize,
    /// The instant of a note that is taken, in seconds.
    pub at_seconds: f64,
    /// Transpositions in semitones, one of which makes the second view of a note; none for a single view.
    pub shifts: Vec<i32>,
}

/// Weights of the losses. Squared distances are sums over the values of a frame or latent, all losses means over the batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LuoLoss {
    /// Squared distance of each view to its reconstruction.
    pub reconstruction: f64,
    /// Distance of the timbre of each view from a standard normal distribution.
    pub kl_timbre: f64,
    /// Distance of the pitch of each view from a uniform distribution.
    pub kl_pitch: f64,
    /// Squared distance of the timbres of both views.
    pub l1: f64,
    /// Contrast of the timbre of a view's partner with all others.
    pub l2: f64,
    /// Timbre and pitch of frames with the timbre of one view and the pitch of the other, in a second step of the optimiser.
    pub l3: f64,
    /// The pitch of the second view is that of the first, shifted.
    pub l4: f64,
    /// The pitch of the first view is that of its label: for a supervised network.
    pub labels: f64,
}

/// Temperature of the samples of pitch: it falls exponentially to the least one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Temperature {
    /// The least one.
    pub floor: f64,
    /// Decay rate for each epoch.
    pub decay: f64,
}

impl Temperature {
    /// Temperature in an epoch, counted from 0.
    pub fn at(&self, epoch: u64) -> f64 {
        (-self.decay * epoch as f64).exp().max(self.floor)
    }
}

impl LuoRecipe {
    /// Checks that the recipe can be trained.
    pub fn check(&self) -> Result<()> {
        self.mel.validate()?;
        self.luo.check(&self.mel)?;
        let Frames {
            batch,
            at_seconds,
            shifts,
            ..
        } = &self.frames;
        ensure!(
            *batch >= 2,
            "frames.batch must be at least 2, found {batch}"
        );
        ensure!(
            shifts.iter().all(|shift| shift.abs() <= 12),
            "frames.shifts must be within an octave, found {shifts:?}"
        );
        // Transposed up, a window takes more of the note.
        let highest = shifts.iter().copied().max().unwrap_or(0).max(0);
        let half_window = self.mel.n_fft as f64 / 2.0 / f64::from(self.mel.sample_rate_hz);
        let half_window = half_window * (f64::from(highest) / 12.0).exp2();
        let needed = at_seconds + half_window;
        ensure!(
            *at_seconds >= half_window && self.notes.seconds >= needed,
            "frames.at_seconds must be at least {half_window:.3} with this analysis, and notes.seconds at least {needed:.3}; \
             found {at_seconds} and {}",
            self.notes.seconds
        );
        let loss = &self.loss;
        ensure!(
            !shifts.is_empty() || [loss.l1, loss.l2, loss.l3, loss.l4] == [0.0; 4],
            "loss.l1 to loss.l4 compare two views of a note: without frames.shifts, they must be 0"
        );
        ensure!(
            self.temperature.floor > 0.0,
            "temperature.floor must be above 0, found {}",
            self.temperature.floor
        );
        ensure!(
            self.patience_epochs > 0,
            "patience_epochs must be at least 1, found 0"
        );
        Ok(())
    }
}
