//! The network of the engine Timbre: it takes what one instrument plays apart into timbre, pitch and variation, the factors of
//! Tanaka et al. (APSIPA 2022), and works on streams.
//!
//! - *Pitch* is the fine structure of the spectrum on the semitone axis. Its encoder sees each frame without its level and without
//!   its smooth envelope, so the colour of an instrument does not reach it.
//! - *Timbre* is the mean of about two seconds of the past, weighted by amplitude, so that silence does not count. It is slow by
//!   construction, so it cannot tell notes apart.
//! - *Variation* is narrow, follows every frame and has no pitch axis: articulation and level.
//!
//! The decoder is that of the [pitch-aligned](crate::pitch_aligned) network, with timbre and variation in the place of rhythm. Two
//! layers look one frame ahead: the first of the pitch encoder, and the first of the decoder on the mel axis.
//!
//! Shapes: B batch, C channels, T mel frames.

use std::ops::RangeInclusive;
use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use vocoder::MelConfig;
use vocoder::layers::{Conv, ConvConfig, Stack};
use vocoder::plan::Builder;

use crate::factor::{Factor, FactorLayout, FactorMap, Transposition};
use crate::latent::Latent;
use crate::network::{Network, NetworkConfig};
use crate::pitch_axis::{
    Interpolation, MEL_STAGES, NOTES, OCTAVE, Time, check_bands, conv, matrix_on_height,
    mel_encoder, mel_to_rows, note_to_mel, residual, validate_standard,
};
use crate::planned::{PlanCell, Planned};

/// Standard deviation of the window that smooths a spectrum, in mel bands: about 200 Hz at low frequencies, and a third of an
/// octave at high ones.
const ENVELOPE_BANDS: f64 = 8.0;

/// The layouts of the latents: all have one frame for each mel frame.
const FACTORS: [FactorLayout; 3] = [
    layout(Factor::Timbre, Transposition::None),
    layout(Factor::Pitch, Transposition::ShiftNotes),
    layout(Factor::Variation, Transposition::None),
];

const fn layout(factor: Factor, transposition: Transposition) -> FactorLayout {
    FactorLayout {
        factor,
        pool_frames: 1,
        transposition,
    }
}

/// Sizes of the network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TimbreConfig {
    /// Channels of the pitch encoder and of the pitch side of the decoder.
    pub pitch_channels: usize,
    /// Pitch latents per note and frame.
    pub pitch_latents: usize,
    /// Channels of the timbre encoder's first layer. Each of its three stages doubles them.
    pub timbre_channels: usize,
    /// Timbre latents.
    pub timbre_latents: usize,
    /// Frames of the past over which the timbre is averaged.
    pub timbre_frames: usize,
    /// Channels of the variation encoder's first layer. Each of its three stages doubles them.
    pub variation_channels: usize,
    /// Variation latents per frame.
    pub variation_latents: usize,
    /// Channels of the decoder that turns timbre and variation into mel bands.
    pub condition_channels: usize,
    /// Channels per mel band that it yields.
    pub condition_planes: usize,
    /// Channels of the decoder on the mel axis.
    pub decoder_channels: usize,
    /// Mean of the training data's log-mel, in nepers.
    pub mel_mean: f64,
    /// Standard deviation of the training data's log-mel, in nepers.
    pub mel_deviation: f64,
}

/// Encoder and decoder.
#[derive(Debug)]
pub struct Timbre {
    plan: PlanCell,
    layers: Layers,
}

#[derive(Clone, Debug)]
struct Layers {
    config: TimbreConfig,
    n_mels: usize,
    /// From mel bands to half-semitone rows, without level and smooth envelope: (rows, bands).
    fine_structure: Tensor,
    note_to_mel: Interpolation,
    pitch_encoder: Stack,
    /// Up to the average, and after it.
    timbre_encoder: [Stack; 2],
    variation_encoder: Stack,
    pitch_decoder: Stack,
    condition_decoder: Stack,
    mel_decoder: Stack,
}

impl NetworkConfig for TimbreConfig {
    fn sizes(&self) -> Vec<(&'static str, usize, RangeInclusive<usize>)> {
        vec![
            ("pitch_channels", self.pitch_channels, 1..=1024),
            ("pitch_latents", self.pitch_latents, 1..=1024),
            ("timbre_channels", self.timbre_channels, 1..=256),
            ("timbre_latents", self.timbre_latents, 1..=1024),
            ("timbre_frames", self.timbre_frames, 1..=1024),
            ("variation_channels", self.variation_channels, 1..=256),
            ("variation_latents", self.variation_latents, 1..=1024),
            ("condition_channels", self.condition_channels, 1..=1024),
            ("condition_planes", self.condition_planes, 1..=256),
            ("decoder_channels", self.decoder_channels, 1..=1024),
        ]
    }

    fn validate_values(&self) -> std::result::Result<(), String> {
        validate_standard(self.mel_mean, self.mel_deviation)
    }

    fn build(&self, mel: &MelConfig, _: bool, vb: &VarBuilder) -> Result<Arc<dyn Network>> {
        Ok(Arc::new(Timbre::new(self, mel, vb)?))
    }
}

/// The layers of each part.
impl TimbreConfig {
    fn pitch_encoder(&self, vb: &VarBuilder) -> Result<Stack> {
        let width = self.pitch_channels;
        let last = ConvConfig::same(width, 2 * self.pitch_latents, (1, 1)).linear();
        Ok(Stack::new(vec![
            conv(ConvConfig::same(1, width, (5, 3)).strided((2, 1)), vb, 0)?,
            residual(width, Time::Causal, vb, 1)?,
            conv(ConvConfig::same(width, width, OCTAVE), vb, 2)?,
            residual(width, Time::Causal, vb, 3)?,
            conv(last, vb, 4)?,
        ]))
    }

    fn timbre_encoder(&self, mel: &MelConfig, vb: &VarBuilder) -> Result<[Stack; 2]> {
        let frames = mel_encoder(self.timbre_channels, mel, Time::Causal, vb)?;
        let width = self.timbre_channels << MEL_STAGES;
        let last = ConvConfig::same(width, 2 * self.timbre_latents, (1, 1)).linear();
        let average = vec![
            conv(ConvConfig::same(width, width, (1, 1)), vb, 2)?,
            conv(last, vb, 3)?,
        ];
        Ok([Stack::new(frames), Stack::new(average)])
    }

    fn variation_encoder(&self, mel: &MelConfig, vb: &VarBuilder) -> Result<Stack> {
        let mut blocks = mel_encoder(self.variation_channels, mel, Time::Causal, vb)?;
        let width = self.variation_channels << MEL_STAGES;
        let last = ConvConfig::same(width, 2 * self.variation_latents, (1, 1)).linear();
        blocks.push(conv(last, vb, 2)?);
        Ok(Stack::new(blocks))
    }

    fn pitch_decoder(&self, vb: &VarBuilder) -> Result<Stack> {
        let width = self.pitch_channels;
        let first = ConvConfig::same(self.pitch_latents, width, (3, 3));
        Ok(Stack::new(vec![
            conv(Time::Causal.of(first), vb, 0)?,
            residual(width, Time::Causal, vb, 1)?,
            conv(ConvConfig::same(width, width, OCTAVE), vb, 2)?,
        ]))
    }

    fn condition_decoder(&self, mel: &MelConfig, vb: &VarBuilder) -> Result<Stack> {
        let width = self.condition_channels;
        let first = ConvConfig::same(self.timbre_latents + self.variation_latents, width, (1, 3));
        let second = ConvConfig::same(width, width, (1, 3));
        let last = ConvConfig::same(width, self.condition_planes * mel.n_mels, (1, 1)).linear();
        Ok(Stack::new(vec![
            conv(Time::Causal.of(first), vb, 0)?,
            conv(Time::Causal.of(second), vb, 1)?,
            conv(last, vb, 2)?,
        ]))
    }

    fn mel_decoder(&self, vb: &VarBuilder) -> Result<Stack> {
        let (input, width) = (
            self.pitch_channels + self.condition_planes,
            self.decoder_channels,
        );
        Ok(Stack::new(vec![
            conv(ConvConfig::same(input, width, (3, 3)), vb, 0)?,
            residual(width, Time::Causal, vb, 1)?,
            residual(width, Time::Causal, vb, 2)?,
            conv(ConvConfig::same(width, 1, (1, 1)).linear(), vb, 3)?,
        ]))
    }
}

impl Timbre {
    /// Reads or creates the weights.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(config: &TimbreConfig, mel: &MelConfig, vb: &VarBuilder) -> Result<Self> {
        check_bands("timbre", mel)?;
        let layers = Layers {
            pitch_encoder: config.pitch_encoder(&vb.pp("pitch_encoder"))?,
            timbre_encoder: config.timbre_encoder(mel, &vb.pp("timbre_encoder"))?,
            variation_encoder: config.variation_encoder(mel, &vb.pp("variation_encoder"))?,
            pitch_decoder: config.pitch_decoder(&vb.pp("pitch_decoder"))?,
            condition_decoder: config.condition_decoder(mel, &vb.pp("condition_decoder"))?,
            mel_decoder: config.mel_decoder(&vb.pp("mel_decoder"))?,
            n_mels: mel.n_mels,
            fine_structure: fine_structure(mel, config.mel_deviation)?
                .to_dtype(vb.dtype())?
                .to_device(vb.device())?,
            note_to_mel: note_to_mel(mel),
            config: config.clone(),
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

    fn to_log_mel(&self, x: &Tensor) -> Result<Tensor> {
        x.affine(self.config.mel_deviation, self.config.mel_mean)
    }

    /// Log-mel (B, 1, n_mels, T) to the pitch latent (B, pitch_latents, [`NOTES`], T).
    fn encode_pitch(&self, mel: &Tensor) -> Result<Latent> {
        let (batch, _, n_mels, frames) = mel.dims4()?;
        let bands = mel.reshape((batch, n_mels, 1, frames))?;
        let rows = matrix_on_height(&self.fine_structure, &bands)?;
        let rows = rows.reshape((batch, 1, 2 * NOTES, frames))?;
        Latent::from_raw(&self.pitch_encoder.forward(&rows)?)
    }

    /// Log-mel (B, 1, n_mels, T) to the timbre latent (B, timbre_latents, 1, T).
    fn encode_timbre(&self, mel: &Tensor) -> Result<Latent> {
        let [frames, average] = &self.timbre_encoder;
        let hidden = frames.forward(&self.standardise(mel)?)?;
        let mean = mean_by_level(&hidden, mel, self.config.timbre_frames)?;
        Latent::from_raw(&average.forward(&mean)?)
    }

    /// Log-mel (B, 1, n_mels, T) to the variation latent (B, variation_latents, 1, T).
    fn encode_variation(&self, mel: &Tensor) -> Result<Latent> {
        Latent::from_raw(&self.variation_encoder.forward(&self.standardise(mel)?)?)
    }

    fn decode(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        let [timbre, pitch, variation] = FACTORS.map(|layout| latents.expect(layout.factor));
        let pitch = self
            .note_to_mel
            .apply(&self.pitch_decoder.forward(pitch?)?)?;
        let condition = Tensor::cat(&[timbre?, variation?], 1)?;
        let condition = self.condition_decoder.forward(&condition)?;
        let (batch, _, _, frames) = condition.dims4()?;
        let planes = self.config.condition_planes;
        let condition = condition.reshape((batch, planes, self.n_mels, frames))?;
        let joined = Tensor::cat(&[pitch, condition], 1)?;
        self.to_log_mel(&self.mel_decoder.forward(&joined)?)
    }

    /// The matrix of the fine structure as a layer that takes the bands as channels.
    fn fine_structure_layer(&self) -> Result<Conv> {
        let weight = self.fine_structure.to_device(&Device::Cpu)?;
        let weight = weight.to_dtype(DType::F32)?;
        let config = ConvConfig::same(self.n_mels, 2 * NOTES, (1, 1)).linear();
        let bias = Tensor::zeros(2 * NOTES, DType::F32, &Device::Cpu)?;
        let weight = weight.reshape((2 * NOTES, self.n_mels, 1, 1))?;
        Ok(Conv::from_tensors(weight, bias, config))
    }

    fn compile(&self) -> Result<Planned> {
        let TimbreConfig {
            timbre_latents,
            pitch_latents,
            variation_latents,
            timbre_frames,
            mel_mean,
            mel_deviation,
            ..
        } = self.config;
        let mut encoder = Planned::builder();
        let mel = encoder.input(self.n_mels, 1);
        let standard = Builder::affine(mel, 1.0 / mel_deviation, -mel_mean / mel_deviation);
        let [frames, average] = &self.timbre_encoder;
        let hidden = encoder.stack(standard, frames)?;
        let mean = encoder.mean_by_level(hidden, mel, timbre_frames)?;
        let timbre = encoder.stack(mean, average)?;
        encoder.output(timbre);
        let rows = encoder.conv(Builder::flatten(mel), &self.fine_structure_layer()?, &[])?;
        let rows = encoder.unflatten(rows, 2 * NOTES)?;
        let pitch = encoder.stack(rows, &self.pitch_encoder)?;
        encoder.output(pitch);
        let variation = encoder.stack(standard, &self.variation_encoder)?;
        encoder.output(variation);

        let mut decoder = Planned::builder();
        let timbre = decoder.input(1, timbre_latents);
        let pitch = decoder.input(NOTES, pitch_latents);
        let variation = decoder.input(1, variation_latents);
        let pitch = decoder.stack(pitch, &self.pitch_decoder)?;
        let pitch = decoder.mix_rows(pitch, self.note_to_mel.rows())?;
        let condition = decoder.join(&[timbre, variation])?;
        let condition = decoder.stack(condition, &self.condition_decoder)?;
        let condition = decoder.unflatten(condition, self.n_mels)?;
        let joined = decoder.join(&[pitch, condition])?;
        let mel = decoder.stack(joined, &self.mel_decoder)?;
        decoder.output(Builder::affine(mel, mel_deviation, mel_mean));

        let sizes = [
            (Factor::Timbre, (timbre_latents, 1)),
            (Factor::Pitch, (pitch_latents, NOTES)),
            (Factor::Variation, (variation_latents, 1)),
        ];
        let sizes = sizes.into_iter().collect();
        Ok(Planned::new(encoder, decoder, self.n_mels, &sizes))
    }

    fn look_ahead_frames(&self) -> usize {
        self.pitch_encoder.look_ahead_frames() + self.mel_decoder.look_ahead_frames()
    }

    /// The decoder looks ahead first, because it sees all factors.
    fn with_look_ahead(&self, frames: usize) -> Result<Self> {
        let mel_decoder = self.mel_decoder.with_look_ahead(frames)?;
        let left = frames - mel_decoder.look_ahead_frames();
        Ok(Self {
            pitch_encoder: self.pitch_encoder.with_look_ahead(left)?,
            mel_decoder,
            ..self.clone()
        })
    }
}

/// The timbre latent has the shape (B, timbre_latents, 1, T), the pitch latent (B, pitch_latents, [`NOTES`], T), and the variation
/// latent (B, variation_latents, 1, T).
impl Network for Timbre {
    fn factors(&self) -> &[FactorLayout] {
        &FACTORS
    }

    fn encode_factor(&self, factor: Factor, mel: &Tensor) -> Result<Latent> {
        self.layout(factor)?;
        match factor {
            Factor::Timbre => self.layers.encode_timbre(mel),
            Factor::Pitch => self.layers.encode_pitch(mel),
            _ => self.layers.encode_variation(mel),
        }
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

/// The mean of each frame of `hidden` (B, C, 1, T) and the frames before it, `frames` in all, weighted by the mean amplitudes of
/// the log-mel (B, 1, n_mels, T). There is nothing before the first frame. As [`Builder::mean_by_level`], for crops: it takes
/// quadratic time.
fn mean_by_level(hidden: &Tensor, mel: &Tensor, frames: usize) -> Result<Tensor> {
    let (batch, channels, _, length) = hidden.dims4()?;
    let weight = mel.exp()?.mean_keepdim(2)?;
    let weighted = Tensor::cat(&[&hidden.broadcast_mul(&weight)?, &weight], 1)?;
    let is_heard = |n: usize| {
        let (past, now) = (n / length, n % length);
        f32::from(past <= now && now < past + frames)
    };
    let window: Vec<f32> = (0..length * length).map(is_heard).collect();
    let window = Tensor::from_vec(window, (length, length), hidden.device())?;
    let sums = weighted
        .reshape((batch * (channels + 1), length))?
        .matmul(&window.to_dtype(hidden.dtype())?)?
        .reshape((batch, channels + 1, 1, length))?;
    let weights = (sums.narrow(1, channels, 1)? + f64::from(f32::MIN_POSITIVE))?;
    sums.narrow(1, 0, channels)?.broadcast_div(&weights)
}

/// From mel bands to half-semitone rows (rows, bands) without the level and the smooth envelope, divided by `deviation`.
fn fine_structure(mel: &MelConfig, deviation: f64) -> Result<Tensor> {
    let n_mels = mel.n_mels;
    let mut matrix = Vec::with_capacity(n_mels * n_mels);
    for band in 0..n_mels {
        let weight = |other: usize| {
            let distance = other.abs_diff(band) as f64 / ENVELOPE_BANDS;
            (-0.5 * distance * distance).exp()
        };
        let sum: f64 = (0..n_mels).map(weight).sum();
        let own = |other: usize| f64::from(u8::from(other == band));
        matrix.extend((0..n_mels).map(|other| (own(other) - weight(other) / sum) / deviation));
    }
    let matrix = Tensor::from_vec(matrix, (n_mels, n_mels), &Device::Cpu)?;
    mel_to_rows(mel)
        .matrix(DType::F64, &Device::Cpu)?
        .matmul(&matrix)
}
