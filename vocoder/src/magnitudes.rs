//! Predicts magnitudes from a mel: how the energy of a band is distributed over its bins.
//!
//! The network learns to tell tones from noise and to locate a tone inside its band, as the post-processing net of Wang
//! et al., "Tacotron: Towards End-to-End Speech Synthesis", Interspeech 2017, does for speech. Griffin-Lim
//! ([`crate::griffin_lim`]) starts from its output instead of the smoothest magnitudes that fit. The network is causal
//! and adds no latency.
//!
//! Shapes: B batch, M mel bands, T frames, F bins of the Fourier transform (`n_fft / 2 + 1`).

use std::sync::{Arc, OnceLock};

use candle_core::{Device, Error, Result, Tensor, bail};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::generator::{MEL_DEVIATION, MEL_MEAN};
use crate::layers::{Block, Conv, ConvConfig, Stack};
use crate::mel::{MEL_FLOOR, MelConfig, MelFilterBank};
use crate::plan::{Builder, Plan, Run};
use crate::simd::Isa;

/// Largest correction, up or down, in nepers.
const LIMIT: f64 = 10.0;

/// Sizes of a [`MagnitudeNetwork`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MagnitudesConfig {
    /// Channels of its layers.
    pub channels: usize,
}

impl MagnitudesConfig {
    /// Checks that the sizes are valid.
    ///
    /// # Errors
    /// If there are no channels, or too many.
    pub fn validate(&self) -> crate::Result<()> {
        match self.channels {
            1..=4096 => Ok(()),
            channels => Err(crate::Error::setting("channels", "1 to 4096", channels)),
        }
    }
}

/// Converts log-mel frames to magnitudes: spreads every band over its bins as smoothly as possible, and corrects the
/// result.
#[derive(Clone, Debug)]
pub struct MagnitudeNetwork {
    /// The smooth magnitudes for unit mels: (F, M).
    spread: Tensor,
    layers: Stack,
    /// The compiled network, if its weights are constant.
    plan: Arc<OnceLock<Arc<Plan>>>,
}

/// State of a [`MagnitudeNetwork`] between steps.
#[derive(Clone, Debug, Default)]
pub struct MagnitudeState {
    run: Option<Run>,
    /// An input, and the outputs.
    values: [Vec<f32>; 3],
}

impl MagnitudeNetwork {
    /// Reads or creates the weights `0` to `3`.
    ///
    /// # Errors
    /// If a setting is not valid, or a tensor is missing or has another shape.
    pub fn new(config: &MagnitudesConfig, mel: &MelConfig, vb: &VarBuilder) -> Result<Self> {
        config.validate().map_err(Error::wrap)?;
        let channels = config.channels;
        let conv = |name: usize, config| Conv::new(config, &vb.pp(name));
        let causal = |input, output, kernel| {
            ConvConfig::same(input, output, (1, kernel)).padded((0, kernel - 1))
        };
        Ok(Self {
            spread: spread(mel)?.to_device(vb.device())?,
            layers: Stack::new(vec![
                Block::Conv(conv(0, causal(mel.n_mels, channels, 5))?),
                Block::Residual(vec![conv(1, causal(channels, channels, 3))?]),
                Block::Residual(vec![conv(2, causal(channels, channels, 1))?]),
                Block::Conv(conv(3, causal(channels, mel.n_bins(), 1).linear())?),
            ]),
            plan: Arc::default(),
        })
    }

    /// Converts a whole clip: log-mels (B, M, T) to magnitudes (B, F, T).
    ///
    /// # Errors
    /// If the input does not fit.
    pub fn forward(&self, log_mel: &Tensor) -> Result<Tensor> {
        let corrections = self.layers.forward(&self.input(log_mel)?)?;
        self.corrected(log_mel, &corrections)
    }

    /// The F magnitudes of the next frame of a stream, from its M log-mels. Processes one frame at a time, so that not
    /// even the rounding depends on how a stream is split: Griffin-Lim's phases are sensitive to it.
    ///
    /// # Errors
    /// If the frame does not fit.
    pub fn step(&self, state: &mut MagnitudeState, log_mel: &[f32]) -> Result<Vec<f32>> {
        let expected = self.spread.dim(1)?;
        if log_mel.len() != expected {
            bail!("expected {expected} mel bands, found {}", log_mel.len());
        }
        let run = match &mut state.run {
            Some(run) => run,
            None => state.run.insert(Run::new(&self.plan()?, 1)),
        };
        let [input, corrections, smooth] = &mut state.values;
        let limit = -MEL_FLOOR.ln();
        let bounded = || log_mel.iter().map(|value| value.max(-limit).min(limit));
        input.clear();
        input.extend(bounded());
        run.push(0, input);
        input.clear();
        input.extend(bounded().map(f32::exp));
        run.push(1, input);
        run.step();
        for (output, values) in [corrections, smooth].into_iter().enumerate() {
            values.clear();
            if run.take(output, values) != 1 {
                bail!(
                    "a causal network must return one frame per input frame, found another number"
                );
            }
        }
        let [_, corrections, smooth] = &state.values;
        let limit = LIMIT as f32;
        let pairs = smooth.iter().zip(corrections);
        Ok(pairs
            .map(|(smooth, correction)| smooth * correction.clamp(-limit, limit).exp())
            .collect())
    }

    /// The compiled network: from the inputs of the layers and from mels to corrections and smooth magnitudes.
    fn plan(&self) -> Result<Arc<Plan>> {
        if let Some(plan) = self.plan.get() {
            return Ok(Arc::clone(plan));
        }
        let (n_bins, n_mels) = self.spread.dims2()?;
        let mut plan = Builder::new(Isa::best());
        let log_mel = plan.input(1, n_mels);
        let mel = plan.input(1, n_mels);
        let standard = (1.0 / MEL_DEVIATION, -MEL_MEAN / MEL_DEVIATION);
        let corrections = plan.stack(
            Builder::affine(log_mel, standard.0, standard.1),
            &self.layers,
        )?;
        let bias = Tensor::zeros(n_bins, self.spread.dtype(), self.spread.device())?;
        let spread = Conv::from_tensors(
            self.spread.reshape((n_bins, n_mels, 1, 1))?,
            bias,
            ConvConfig::same(n_mels, n_bins, (1, 1)).linear(),
        );
        let smooth = plan.conv(mel, &spread, &[])?;
        plan.output(corrections);
        plan.output(smooth);
        let plan = plan.build();
        Ok(match self.layers.is_trained() {
            true => plan,
            false => Arc::clone(self.plan.get_or_init(|| plan)),
        })
    }

    /// (B, M, T) as a plane of height one (B, M, 1, T).
    fn input(&self, log_mel: &Tensor) -> Result<Tensor> {
        let (_, n_mels, _) = log_mel.dims3()?;
        let expected = self.spread.dim(1)?;
        if n_mels != expected {
            bail!("expected {expected} mel bands, found {n_mels}");
        }
        log_mel
            .affine(1.0 / MEL_DEVIATION, -MEL_MEAN / MEL_DEVIATION)?
            .unsqueeze(2)
    }

    /// The magnitudes of log-mels (B, M, T), given the corrections (B, F, 1, T) in nepers.
    fn corrected(&self, log_mel: &Tensor, corrections: &Tensor) -> Result<Tensor> {
        let smooth = self.spread.broadcast_matmul(&log_mel.exp()?)?;
        smooth * corrections.squeeze(2)?.clamp(-LIMIT, LIMIT)?.exp()?
    }
}

/// Weight of each band's mel in each bin's magnitude, (F, M): the level of a band in all of its bins; where bands
/// overlap, their weighted mean.
fn spread(mel: &MelConfig) -> Result<Tensor> {
    let filters = MelFilterBank::new(mel).map_err(Error::wrap)?;
    let (n_bins, n_mels) = (filters.n_bins(), filters.n_mels());
    let mut shares = vec![0.0; n_bins * n_mels];
    let mut weights = vec![0.0; n_bins];
    filters.apply_transposed(&vec![1.0; n_mels], &mut weights);
    for (band, (bins, band_weights)) in filters.bands().enumerate() {
        let total: f32 = band_weights.iter().sum();
        for (bin, weight) in bins.zip(band_weights).filter(|(_, weight)| **weight > 0.0) {
            shares[bin * n_mels + band] = weight / (total * weights[bin]);
        }
    }
    Tensor::from_vec(shares, (n_bins, n_mels), &Device::Cpu)
}
