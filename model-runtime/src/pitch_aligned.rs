//! The network of the built-in model: HARD (Wu, DAFx 2023) with its harmony latent laid out on the pitch axis.
//!
//! A shift of the harmony latent is a shift by semitones. Because its encoder convolves along pitch, transposing the
//! music shifts the latent by the same amount. The harmony is averaged over a few frames, so that it cannot carry the
//! rhythm. The rhythm latent is narrow and has no pitch axis.
//!
//! Shapes: B batch, C channels, T mel frames, P = T / `pool_frames` pooled frames (rounded up).

use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::layers::{Conv, ConvConfig, Stack};
use vocoder::plan::Builder;

use crate::factor::{Factor, FactorLayout, FactorMap, Transposition};
use crate::latent::Latent;
use crate::network::{Network, NetworkConfig};
pub use crate::pitch_axis::NOTES;
use crate::pitch_axis::{
    Interpolation, MEL_STAGES, OCTAVE, Time, check_bands, conv, mel_encoder, mel_to_rows,
    note_to_mel, residual, validate_standard,
};
use crate::planned::{PlanCell, Planned};

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PitchAlignedConfig {
    /// Channels of the harmony encoder and of the harmony side of the decoder.
    pub harmony_channels: usize,
    /// Harmony latents per note.
    pub harmony_latents: usize,
    /// Mel frames per pooled frame.
    pub pool_frames: usize,
    /// Channels of the rhythm encoder's first layer. Each of its three stages doubles them.
    pub rhythm_channels: usize,
    /// Rhythm latents per frame.
    pub rhythm_latents: usize,
    /// Channels of the rhythm side of the decoder on the mel axis.
    pub rhythm_planes: usize,
    /// Channels of the decoder on the mel axis.
    pub decoder_channels: usize,
    /// Mean of the training data's log-mel, in nepers.
    pub mel_mean: f64,
    /// Standard deviation of the training data's log-mel, in nepers.
    pub mel_deviation: f64,
}

/// Encoder and decoder.
#[derive(Debug)]
pub struct PitchAligned {
    plan: PlanCell,
    layers: Layers,
}

#[derive(Clone, Debug)]
struct Layers {
    config: PitchAlignedConfig,
    factors: [FactorLayout; 2],
    n_mels: usize,
    mel_to_rows: Interpolation,
    note_to_mel: Interpolation,
    /// Whether the pooled harmony is interpolated with the next pooled frame.
    stretches_ahead: bool,
    harmony_encoder: Stack,
    rhythm_encoder: Stack,
    harmony_decoder: Stack,
    rhythm_decoder: Stack,
    mel_decoder: Stack,
}

impl NetworkConfig for PitchAlignedConfig {
    fn sizes(&self) -> Vec<(&'static str, usize, RangeInclusive<usize>)> {
        vec![
            ("harmony_channels", self.harmony_channels, 1..=1024),
            ("harmony_latents", self.harmony_latents, 1..=1024),
            ("pool_frames", self.pool_frames, 1..=64),
            ("rhythm_channels", self.rhythm_channels, 1..=256),
            ("rhythm_latents", self.rhythm_latents, 1..=1024),
            ("rhythm_planes", self.rhythm_planes, 1..=256),
            ("decoder_channels", self.decoder_channels, 1..=1024),
        ]
    }

    fn validate_values(&self) -> std::result::Result<(), String> {
        validate_standard(self.mel_mean, self.mel_deviation)
    }

    fn build(&self, mel: &MelConfig, _: bool, vb: &VarBuilder) -> Result<Arc<dyn Network>> {
        Ok(Arc::new(PitchAligned::new(self, mel, vb)?))
    }
}

/// The layers of each part.
impl PitchAlignedConfig {
    fn harmony_encoder(&self, vb: &VarBuilder) -> Result<Stack> {
        let width = self.harmony_channels;
        let last = ConvConfig::same(width, 2 * self.harmony_latents, (1, 1)).linear();
        Ok(Stack::new(vec![
            conv(ConvConfig::same(1, width, (5, 3)).strided((2, 1)), vb, 0)?,
            residual(width, Time::Centred, vb, 1)?,
            conv(ConvConfig::same(width, width, OCTAVE), vb, 2)?,
            residual(width, Time::Centred, vb, 3)?,
            conv(last, vb, 4)?,
        ]))
    }

    fn rhythm_encoder(&self, mel: &MelConfig, vb: &VarBuilder) -> Result<Stack> {
        let mut blocks = mel_encoder(self.rhythm_channels, mel, Time::Centred, vb)?;
        let width = self.rhythm_channels << MEL_STAGES;
        let last = ConvConfig::same(width, 2 * self.rhythm_latents, (1, 1)).linear();
        blocks.push(conv(last, vb, 2)?);
        Ok(Stack::new(blocks))
    }

    fn harmony_decoder(&self, vb: &VarBuilder) -> Result<Stack> {
        let width = self.harmony_channels;
        let first = ConvConfig::same(self.harmony_latents, width, (3, 3));
        Ok(Stack::new(vec![
            conv(first, vb, 0)?,
            residual(width, Time::Centred, vb, 1)?,
            conv(ConvConfig::same(width, width, OCTAVE), vb, 2)?,
        ]))
    }

    fn rhythm_decoder(&self, mel: &MelConfig, vb: &VarBuilder) -> Result<Stack> {
        let width = self.rhythm_channels << MEL_STAGES;
        let last = ConvConfig::same(width, self.rhythm_planes * mel.n_mels, (1, 1)).linear();
        Ok(Stack::new(vec![
            conv(ConvConfig::same(self.rhythm_latents, width, (1, 3)), vb, 0)?,
            conv(ConvConfig::same(width, width, (1, 3)), vb, 1)?,
            conv(last, vb, 2)?,
        ]))
    }

    fn mel_decoder(&self, vb: &VarBuilder) -> Result<Stack> {
        let (input, width) = (
            self.harmony_channels + self.rhythm_planes,
            self.decoder_channels,
        );
        Ok(Stack::new(vec![
            conv(ConvConfig::same(input, width, (3, 3)), vb, 0)?,
            residual(width, Time::Centred, vb, 1)?,
            residual(width, Time::Centred, vb, 2)?,
            conv(ConvConfig::same(width, 1, (1, 1)).linear(), vb, 3)?,
        ]))
    }
}

impl PitchAligned {
    /// Reads or creates the weights.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &PitchAlignedConfig, mel: &MelConfig, vb: &VarBuilder) -> Result<Self> {
        check_bands("pitch-aligned", mel)?;
        let layers = Layers {
            harmony_encoder: config.harmony_encoder(&vb.pp("harmony_encoder"))?,
            rhythm_encoder: config.rhythm_encoder(mel, &vb.pp("rhythm_encoder"))?,
            harmony_decoder: config.harmony_decoder(&vb.pp("harmony_decoder"))?,
            rhythm_decoder: config.rhythm_decoder(mel, &vb.pp("rhythm_decoder"))?,
            mel_decoder: config.mel_decoder(&vb.pp("mel_decoder"))?,
            factors: [
                FactorLayout {
                    factor: Factor::Harmony,
                    pool_frames: config.pool_frames,
                    transposition: Transposition::ShiftNotes,
                },
                FactorLayout {
                    factor: Factor::Rhythm,
                    pool_frames: 1,
                    transposition: Transposition::None,
                },
            ],
            n_mels: mel.n_mels,
            mel_to_rows: mel_to_rows(mel),
            note_to_mel: note_to_mel(mel),
            config: config.clone(),
            stretches_ahead: true,
        };
        Ok(Self::of(layers))
    }

    fn of(layers: Layers) -> Self {
        Self {
            plan: PlanCell::new(layers.mel_decoder.is_trained()),
            layers,
        }
    }
}

impl Layers {
    fn standardise(&self, mel: &Tensor) -> Result<Tensor> {
        mel.affine(
            1.0 / self.config.mel_deviation,
            -self.config.mel_mean / self.config.mel_deviation,
        )
    }

    /// Log-mel (B, 1, n_mels, T) to the harmony latent (B, harmony_latents, [`NOTES`], P).
    ///
    /// # Errors
    /// If the shape does not fit.
    fn encode_harmony(&self, mel: &Tensor) -> Result<Latent> {
        let pooled = self.pool(&self.whole_pools(mel)?)?;
        Latent::from_raw(&self.harmony_encoder.forward(&self.pitch_rows(&pooled)?)?)
    }

    /// Repeats the last frame up to a multiple of `pool_frames`.
    fn whole_pools(&self, mel: &Tensor) -> Result<Tensor> {
        let frames = mel.dim(D::Minus1)?;
        let missing = frames.next_multiple_of(self.config.pool_frames) - frames;
        mel.pad_with_same(D::Minus1, 0, missing)
    }

    /// Means of `pool_frames` frames each: (B, 1, n_mels, P * pool_frames) to (B, 1, n_mels, P).
    fn pool(&self, mel: &Tensor) -> Result<Tensor> {
        let (batch, _, n_mels, frames) = mel.dims4()?;
        let pool = self.config.pool_frames;
        mel.reshape((batch, 1, n_mels, frames / pool, pool))?
            .mean(D::Minus1)
    }

    /// Pooled log-mel (B, 1, n_mels, P), with its level removed, on the half-semitone grid (B, 1, 2 * NOTES, P).
    fn pitch_rows(&self, pooled: &Tensor) -> Result<Tensor> {
        let x = self.standardise(pooled)?;
        let x = x.broadcast_sub(&x.mean_keepdim(2)?)?;
        self.mel_to_rows.apply(&x)
    }

    /// Log-mel (B, 1, n_mels, T) to the rhythm latent (B, rhythm_latents, 1, T).
    ///
    /// # Errors
    /// If the shape does not fit.
    fn encode_rhythm(&self, mel: &Tensor) -> Result<Latent> {
        Latent::from_raw(&self.rhythm_encoder.forward(&self.standardise(mel)?)?)
    }

    /// Pooled frames before and after a frame that [`Self::stretch`] needs.
    fn stretch_context(&self) -> (usize, usize) {
        (1, usize::from(self.stretches_ahead))
    }

    /// Linear interpolation in time, as PyTorch's `interpolate` (`align_corners=False`): (B, C, H, 1 + P + 1), whose
    /// first and last frames are only context, to (B, C, H, P * pool_frames). Without look-ahead, the last context
    /// frame is missing.
    fn stretch(&self, x: &Tensor) -> Result<Tensor> {
        let factor = self.config.pool_frames;
        let (batch, channels, height, padded) = x.dims4()?;
        let (_, ahead) = self.stretch_context();
        let frames = padded - 1 - ahead;
        let [before, here, after] =
            [0, 1, 1 + ahead].map(|start| x.narrow(D::Minus1, start, frames));
        let (before, here, after) = (before?, here?, after?);
        let phases = (0..factor)
            .map(|phase| {
                let position = (phase as f64 + 0.5) / factor as f64 - 0.5;
                let neighbour = if position < 0.0 { &before } else { &after };
                (&here * (1.0 - position.abs()))? + (neighbour * position.abs())?
            })
            .collect::<Result<Vec<_>>>()?;
        Tensor::stack(&phases, D::Minus1)?.reshape((batch, channels, height, frames * factor))
    }

    fn rhythm_rows(&self, r: &Tensor) -> Result<Tensor> {
        let (batch, _, _, frames) = r.dims4()?;
        r.reshape((batch, self.config.rhythm_planes, self.n_mels, frames))
    }

    fn to_log_mel(&self, x: &Tensor) -> Result<Tensor> {
        x.affine(self.config.mel_deviation, self.config.mel_mean)
    }

    fn decode(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        let harmony = latents.expect(Factor::Harmony)?;
        let rhythm = latents.expect(Factor::Rhythm)?;
        let frames = rhythm.dim(D::Minus1)?;
        let h = self
            .note_to_mel
            .apply(&self.harmony_decoder.forward(harmony)?)?;
        let (before, after) = self.stretch_context();
        let edge = h.pad_with_same(D::Minus1, before, after)?;
        let h = self.stretch(&edge)?.narrow(D::Minus1, 0, frames)?;
        let r = self.rhythm_rows(&self.rhythm_decoder.forward(rhythm)?)?;
        self.to_log_mel(&self.mel_decoder.forward(&Tensor::cat(&[h, r], 1)?)?)
    }

    /// [`Self::pool`], [`Self::standardise`] and [`Self::pitch_rows`] in one layer that takes the bands as channels.
    fn rows_layer(&self) -> Result<Conv> {
        let pool = self.config.pool_frames;
        let scale = 1.0 / (self.config.mel_deviation * pool as f64);
        let matrix = self.mel_to_rows.matrix(DType::F64, &Device::Cpu)?;
        // A row of the matrix interpolates, so its sum is one: subtracting the mean over the bands is subtracting the
        // same number from all weights.
        let weight = ((matrix - 1.0 / self.n_mels as f64)? * scale)?.to_dtype(DType::F32)?;
        let weight = weight
            .reshape((2 * NOTES, self.n_mels, 1, 1))?
            .repeat((1, 1, 1, pool))?;
        let config = ConvConfig::same(self.n_mels, 2 * NOTES, (1, pool))
            .linear()
            .padded((0, 0))
            .strided((1, pool));
        let bias = Tensor::zeros(2 * NOTES, DType::F32, &Device::Cpu)?;
        Ok(Conv::from_tensors(weight, bias, config))
    }

    fn compile(&self) -> Result<Planned> {
        let PitchAlignedConfig {
            mel_mean,
            mel_deviation,
            ..
        } = self.config;
        let mut encoder = Planned::builder();
        let mel = encoder.input(self.n_mels, 1);
        let rows = encoder.conv(Builder::flatten(mel), &self.rows_layer()?, &[])?;
        let rows = encoder.unflatten(rows, 2 * NOTES)?;
        let harmony = encoder.stack(rows, &self.harmony_encoder)?;
        encoder.output(harmony);
        let standard = Builder::affine(mel, 1.0 / mel_deviation, -mel_mean / mel_deviation);
        let rhythm = encoder.stack(standard, &self.rhythm_encoder)?;
        encoder.output(rhythm);

        let mut decoder = Planned::builder();
        let harmony = decoder.input(NOTES, self.config.harmony_latents);
        let rhythm = decoder.input(1, self.config.rhythm_latents);
        let h = decoder.stack(harmony, &self.harmony_decoder)?;
        let h = decoder.mix_rows(h, self.note_to_mel.rows())?;
        let h = decoder.stretch(h, self.config.pool_frames, self.stretches_ahead)?;
        let r = decoder.stack(rhythm, &self.rhythm_decoder)?;
        let r = decoder.unflatten(r, self.n_mels)?;
        let joined = decoder.join(&[h, r])?;
        let mel = decoder.stack(joined, &self.mel_decoder)?;
        decoder.output(Builder::affine(mel, mel_deviation, mel_mean));

        let sizes = [
            (Factor::Harmony, (self.config.harmony_latents, NOTES)),
            (Factor::Rhythm, (self.config.rhythm_latents, 1)),
        ];
        let sizes = sizes.into_iter().collect();
        Ok(Planned::new(encoder, decoder, self.n_mels, &sizes))
    }

    fn look_ahead_frames(&self) -> usize {
        let pool = self.config.pool_frames;
        let pooled = self.harmony_encoder.look_ahead_frames()
            + self.harmony_decoder.look_ahead_frames()
            + usize::from(self.stretches_ahead);
        let rhythm =
            self.rhythm_encoder.look_ahead_frames() + self.rhythm_decoder.look_ahead_frames();
        (pool - 1 + pool * pooled).max(rhythm) + self.mel_decoder.look_ahead_frames()
    }

    /// The harmony average always needs `pool_frames - 1` frames, so a lower limit has no effect. The parts that work
    /// in pooled frames take whole pooled frames of the rest, in the order interpolation, decoder, encoder; the mel
    /// decoder takes what remains. The rhythm side looks as far ahead as the harmony side.
    fn with_look_ahead(&self, frames: usize) -> Result<Self> {
        let pool = self.config.pool_frames;
        let spare = frames.saturating_sub(pool - 1);
        let mel_decoder = self.mel_decoder.with_look_ahead(spare % pool)?;
        let mut pooled = spare / pool;
        let stretches_ahead = self.stretches_ahead && pooled > 0;
        pooled -= usize::from(stretches_ahead);
        let harmony_decoder = self.harmony_decoder.with_look_ahead(pooled)?;
        pooled -= harmony_decoder.look_ahead_frames();
        let harmony_encoder = self.harmony_encoder.with_look_ahead(pooled)?;
        pooled -= harmony_encoder.look_ahead_frames();
        // Give the frames that the harmony side cannot use to the mel decoder.
        let mel_decoder = match pooled {
            0 => mel_decoder,
            _ => self
                .mel_decoder
                .with_look_ahead(spare % pool + pooled * pool)?,
        };
        let before_mel = frames.max(pool - 1) - mel_decoder.look_ahead_frames();
        let rhythm_encoder = self.rhythm_encoder.with_look_ahead(before_mel)?;
        let rhythm_decoder = self
            .rhythm_decoder
            .with_look_ahead(before_mel - rhythm_encoder.look_ahead_frames())?;
        Ok(Self {
            stretches_ahead,
            harmony_encoder,
            rhythm_encoder,
            harmony_decoder,
            rhythm_decoder,
            mel_decoder,
            ..self.clone()
        })
    }
}

/// The harmony latent has the shape (B, harmony_latents, [`NOTES`], P), the rhythm latent (B, rhythm_latents, 1, T).
impl Network for PitchAligned {
    fn factors(&self) -> &[FactorLayout] {
        &self.layers.factors
    }

    fn encode_factor(&self, factor: Factor, mel: &Tensor) -> Result<Latent> {
        self.layout(factor)?;
        if factor == Factor::Harmony {
            return self.layers.encode_harmony(mel);
        }
        self.layers.encode_rhythm(mel)
    }

    fn decode_layers(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        self.layers.decode(latents)
    }

    fn compile(&self) -> Result<Planned> {
        self.layers.compile()
    }

    fn plan_cell(&self) -> &PlanCell {
        &self.plan
    }

    fn look_ahead_frames(&self) -> usize {
        self.layers.look_ahead_frames()
    }

    fn with_look_ahead(&self, frames: usize) -> Result<Arc<dyn Network>> {
        Ok(Arc::new(Self::of(self.layers.with_look_ahead(frames)?)))
    }
}
