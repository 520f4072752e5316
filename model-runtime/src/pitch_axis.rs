//! What the networks on the pitch axis share: the semitone grid, the encoder down the mel axis, and layers without look-ahead.
//!
//! Shapes: B batch, C channels, T frames.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use vocoder::MelConfig;
use vocoder::conv::{Conv2dSpec, conv2d};
use vocoder::layers::{Block, Conv, ConvConfig};

/// Lowest note of the axis, as a MIDI number (65.4 Hz).
const LOWEST_NOTE: f64 = 36.0;
/// Notes of a latent on the pitch axis: MIDI 36 to 123.
pub const NOTES: usize = 88;
/// Stages of an encoder down the mel axis, and the factor by which each divides the mel bands.
pub(crate) const MEL_STAGES: u32 = 3;
const MEL_STRIDE: usize = 4;
/// Kernel of the convolutions along pitch: an octave.
pub(crate) const OCTAVE: (usize, usize) = (13, 1);

/// Which frames a layer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Time {
    /// As many before as after the frame that it computes.
    Centred,
    /// None after it.
    Causal,
}

impl Time {
    /// A layer of unit stride in time.
    pub(crate) fn of(self, config: ConvConfig) -> ConvConfig {
        match self {
            Self::Centred => config,
            Self::Causal => config.padded((config.spec.padding.0, config.kernel.1 - 1)),
        }
    }
}

/// Convolution `number` of its part.
pub(crate) fn conv(config: ConvConfig, vb: &VarBuilder, number: usize) -> Result<Block> {
    Conv::new(config, &vb.pp(number)).map(Block::Conv)
}

/// Residual block `number` of its part.
pub(crate) fn residual(
    channels: usize,
    time: Time,
    vb: &VarBuilder,
    number: usize,
) -> Result<Block> {
    let config = time.of(ConvConfig::same(channels, channels, (3, 3)));
    Block::residual(config, &vb.pp(number))
}

/// The layers of an encoder down the mel axis: (B, 1, n_mels, T) to (B, `channels` << [`MEL_STAGES`], 1, T). Each stage doubles
/// the channels. The next layer of the part has number 2.
pub(crate) fn mel_encoder(
    mut channels: usize,
    mel: &MelConfig,
    time: Time,
    vb: &VarBuilder,
) -> Result<Vec<Block>> {
    let mut rows = mel.n_mels;
    let first = ConvConfig::same(1, channels, (3, 3));
    let mut blocks = vec![conv(time.of(first), vb, 0)?];
    for stage in 0..MEL_STAGES {
        let vb = &vb.pp(format!("stage{stage}"));
        let widen = ConvConfig::same(channels, 2 * channels, (3, 3));
        blocks.push(conv(time.of(widen), vb, 0)?);
        channels *= 2;
        let down = ConvConfig::same(channels, channels, (MEL_STRIDE, 3))
            .strided((MEL_STRIDE, 1))
            .padded((0, 1))
            .linear();
        blocks.push(conv(time.of(down), vb, 1)?);
        rows /= MEL_STRIDE;
        blocks.push(residual(channels, time, vb, 2)?);
    }
    blocks.push(Block::Flatten);
    let flat = ConvConfig::same(channels * rows, channels, (1, 3));
    blocks.push(conv(time.of(flat), vb, 1)?);
    Ok(blocks)
}

/// Rejects mel bands that [`mel_encoder`] cannot divide.
pub(crate) fn check_bands(network: &str, mel: &MelConfig) -> Result<()> {
    let positions = MEL_STRIDE.pow(MEL_STAGES);
    if mel.n_mels == 0 || !mel.n_mels.is_multiple_of(positions) {
        candle_core::bail!(
            "the {network} network expects a multiple of {positions} mel bands, found {}",
            mel.n_mels
        );
    }
    Ok(())
}

/// Rejects values that log-mels cannot be standardised with.
pub(crate) fn validate_standard(mean: f64, deviation: f64) -> std::result::Result<(), String> {
    match mean.is_finite() && deviation.is_finite() && deviation > 0.0 {
        true => Ok(()),
        false => Err(format!(
            "mel_mean must be finite and mel_deviation finite and above 0, found {mean} and {deviation}"
        )),
    }
}

/// Applies a matrix (out, in) to the second axis of (B, in, 1, T): (B, out, 1, T).
pub(crate) fn matrix_on_height(matrix: &Tensor, x: &Tensor) -> Result<Tensor> {
    let (rows, columns) = matrix.dims2()?;
    let no_bias = Tensor::zeros(rows, matrix.dtype(), matrix.device())?;
    let kernel = matrix.reshape((rows, columns, 1, 1))?;
    conv2d(&x.contiguous()?, &kernel, &no_bias, Conv2dSpec::default())
}

/// Interpolation between neighbouring rows.
#[derive(Clone, Debug)]
pub(crate) struct Interpolation {
    /// For each output row, the first of two neighbouring input rows and the weights of both.
    rows: Vec<(usize, [f32; 2])>,
    /// Input rows.
    columns: usize,
}

impl Interpolation {
    /// From `columns` rows to the rows at `positions`. Positions beyond the ends take the end values.
    fn new(positions: impl Iterator<Item = f64>, columns: usize) -> Self {
        let rows = positions.map(|position| {
            let position = position.clamp(0.0, (columns - 1) as f64);
            let below = (position as usize).min(columns - 2);
            let above = (position - below as f64) as f32;
            (below, [1.0 - above, above])
        });
        Self {
            rows: rows.collect(),
            columns,
        }
    }

    /// For each output row, the first of two neighbouring input rows and the weights of both.
    pub(crate) fn rows(&self) -> &[(usize, [f32; 2])] {
        &self.rows
    }

    /// As a matrix (out, in).
    pub(crate) fn matrix(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut matrix = vec![0f32; self.rows.len() * self.columns];
        for (row, &(below, weights)) in matrix.chunks_exact_mut(self.columns).zip(&self.rows) {
            row[below..below + 2].copy_from_slice(&weights);
        }
        Tensor::from_vec(matrix, (self.rows.len(), self.columns), device)?.to_dtype(dtype)
    }

    /// (B, C, in, T) to (B, C, out, T).
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, channels, rows, frames) = x.dims4()?;
        let by_row =
            x.transpose(1, 2)?
                .contiguous()?
                .reshape((batch, rows, 1, channels * frames))?;
        matrix_on_height(&self.matrix(x.dtype(), x.device())?, &by_row)?
            .reshape((batch, self.rows.len(), channels, frames))?
            .transpose(1, 2)?
            .contiguous()
    }
}

/// From mel bands to half-semitone rows, a quarter tone below and above each note.
pub(crate) fn mel_to_rows(mel: &MelConfig) -> Interpolation {
    let positions = (0..2 * NOTES).map(|row| {
        let note = LOWEST_NOTE - 0.25 + row as f64 / 2.0;
        mel.band_at_hz(440.0 * ((note - 69.0) / 12.0).exp2())
    });
    Interpolation::new(positions, mel.n_mels)
}

/// From notes to mel bands.
pub(crate) fn note_to_mel(mel: &MelConfig) -> Interpolation {
    let positions = (0..mel.n_mels)
        .map(|band| 69.0 + 12.0 * (mel.band_centre_hz(band as f64) / 440.0).log2() - LOWEST_NOTE);
    Interpolation::new(positions, NOTES)
}
