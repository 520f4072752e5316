//! Networks compiled to plans ([`vocoder::plan`]), for whole clips and streams.

use std::sync::{Arc, OnceLock};

use candle_core::{DType, Device, Result, Tensor, bail};
use vocoder::plan::{Builder, Plan, Run};
use vocoder::simd::Isa;

use crate::factor::{Factor, FactorMap};
use crate::latent::{Latent, Latents};
use crate::network::{StreamDecoder, StreamEncoder};

/// Mel frames per step of a whole clip.
const STEP_FRAMES: usize = 16;

/// Sizes of a signal: rows and channels per frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sizes {
    rows: usize,
    channels: usize,
}

/// Keeps the compiled form of a network whose weights are constant.
#[derive(Debug)]
pub struct PlanCell {
    is_trained: bool,
    planned: OnceLock<Arc<Planned>>,
}

impl PlanCell {
    /// An empty cell. `is_trained` tells whether the weights may change.
    pub(crate) fn new(is_trained: bool) -> Self {
        Self {
            is_trained,
            planned: OnceLock::new(),
        }
    }

    /// Whether the weights may change.
    pub(crate) fn is_trained(&self) -> bool {
        self.is_trained
    }

    /// The compiled network. Compiled once if its weights are constant, else at every call.
    pub(crate) fn get(&self, compile: impl FnOnce() -> Result<Planned>) -> Result<Arc<Planned>> {
        if let Some(planned) = self.planned.get() {
            return Ok(Arc::clone(planned));
        }
        let planned = Arc::new(compile()?);
        Ok(match self.is_trained {
            true => planned,
            false => Arc::clone(self.planned.get_or_init(|| planned)),
        })
    }
}

/// A compiled network.
#[derive(Debug)]
pub struct Planned {
    /// From the mel to the raw latents (means and spreads) of all factors.
    encoder: Arc<Plan>,
    /// From the latents of all factors to the mel.
    decoder: Arc<Plan>,
    n_mels: usize,
    /// Sizes of the latents.
    latents: FactorMap<Sizes>,
}

impl Planned {
    /// Takes the builders of both plans. The encoder has the mel (`n_mels`, 1) as its input, and one output (H, 2C) per
    /// factor. The decoder has one input (H, C) per factor, and the mel as its output. `latents` are the sizes (C, H) of
    /// the latents. Factors are in the order of [`Factor::ALL`].
    pub(crate) fn new(
        encoder: Builder,
        decoder: Builder,
        n_mels: usize,
        latents: &FactorMap<(usize, usize)>,
    ) -> Self {
        Self {
            encoder: encoder.build(),
            decoder: decoder.build(),
            n_mels,
            latents: latents.map(|_, &(channels, rows)| Sizes { rows, channels }),
        }
    }

    /// Begins a plan for this processor.
    pub(crate) fn builder() -> Builder {
        Builder::new(Isa::best())
    }

    /// Whether plans can run on a tensor: it is on the CPU, and no gradient goes through it.
    pub(crate) fn runs_on(x: &Tensor) -> bool {
        matches!(x.device(), Device::Cpu) && x.dtype() == DType::F32 && !x.track_op()
    }

    /// As [`crate::Network::encode`].
    pub(crate) fn encode(&self, mel: &Tensor) -> Result<Latents> {
        self.check_mel(mel)?;
        let batch = mel.dim(0)?;
        let raw = Run::whole(&self.encoder, batch, &[&to_frames(mel)?], STEP_FRAMES);
        let raw = self.latents.iter().zip(raw);
        raw.map(|((factor, sizes), raw)| {
            let tensor = to_tensor(&raw, batch, raw_sizes(*sizes), 2 * sizes.channels)?;
            Ok((factor, Latent::from_raw(&tensor)?))
        })
        .collect()
    }

    /// As [`crate::Network::decode`].
    pub(crate) fn decode(&self, latents: &FactorMap<Tensor>) -> Result<Tensor> {
        let mut inputs = Vec::new();
        let mut batch = 1;
        for (factor, sizes) in self.latents.iter() {
            let latent = latents.expect(factor)?;
            check(factor, latent, *sizes)?;
            batch = latent.dim(0)?;
            inputs.push(to_frames(latent)?);
        }
        if latents.iter().any(|(_, latent)| latent.dims()[0] != batch) {
            bail!("expected latents with the same batch size, found {latents:?}");
        }
        // Latents may have fewer frames than the mel.
        let frames = |latent: &Tensor| latent.dims()[3];
        let longest = latents.values().map(frames).max().unwrap_or(1);
        let first = latents.values().map(frames).next().unwrap_or(1);
        let step = (STEP_FRAMES * first).div_ceil(longest.max(1)).max(1);
        let inputs: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let mel = Run::whole(&self.decoder, batch, &inputs, step).remove(0);
        self.mel_tensor(&mel, batch)
    }

    /// Creates an encoder for a new stream.
    pub(crate) fn stream_encoder(self: &Arc<Self>) -> Box<dyn StreamEncoder> {
        Box::new(Encoder {
            planned: Arc::clone(self),
            run: None,
            frames: Vec::new(),
        })
    }

    /// Creates a decoder for a new stream.
    pub(crate) fn stream_decoder(self: &Arc<Self>) -> Box<dyn StreamDecoder> {
        Box::new(Decoder {
            planned: Arc::clone(self),
            run: None,
            frames: Vec::new(),
        })
    }

    fn check_mel(&self, mel: &Tensor) -> Result<()> {
        let (_, channels, n_mels, _) = mel.dims4()?;
        if (channels, n_mels) != (1, self.n_mels) {
            bail!(
                "expected a mel (B, 1, {}, T), found {:?}",
                self.n_mels,
                mel.dims()
            );
        }
        Ok(())
    }

    fn mel_tensor(&self, frames: &[f32], batch: usize) -> Result<Tensor> {
        let sizes = Sizes {
            rows: self.n_mels,
            channels: 1,
        };
        to_tensor(frames, batch, sizes, 1)
    }
}

/// Sizes of the raw latent: the mean's channels and those of the spread.
fn raw_sizes(latent: Sizes) -> Sizes {
    Sizes {
        channels: 2 * latent.channels,
        ..latent
    }
}

fn check(factor: Factor, latent: &Tensor, sizes: Sizes) -> Result<()> {
    let (_, channels, rows, _) = latent.dims4()?;
    if (Sizes { rows, channels }) != sizes {
        bail!(
            "expected a {factor} latent of {sizes:?}, found {:?}",
            latent.dims()
        );
    }
    Ok(())
}

/// A tensor (B, C, H, T) as (batch, frame, row, channel).
fn to_frames(x: &Tensor) -> Result<Vec<f32>> {
    let (batch, channels, rows, frames) = x.dims4()?;
    let values = x.flatten_all()?.to_vec1::<f32>()?;
    let mut out = Vec::with_capacity(values.len());
    for b in 0..batch {
        for frame in 0..frames {
            for row in 0..rows {
                let at = |channel| ((b * channels + channel) * rows + row) * frames + frame;
                out.extend((0..channels).map(|channel| values[at(channel)]));
            }
        }
    }
    Ok(out)
}

/// The first `channels` of (batch, frame, row, channel) as a tensor (B, C, H, T).
fn to_tensor(values: &[f32], batch: usize, sizes: Sizes, channels: usize) -> Result<Tensor> {
    let Sizes {
        rows,
        channels: pitch,
    } = sizes;
    let frames = values.len() / (batch * rows * pitch);
    let mut out = Vec::with_capacity(batch * channels * rows * frames);
    for b in 0..batch {
        for channel in 0..channels {
            for row in 0..rows {
                let at = |frame| ((b * frames + frame) * rows + row) * pitch + channel;
                out.extend((0..frames).map(|frame| values[at(frame)]));
            }
        }
    }
    Tensor::from_vec(out, (batch, channels, rows, frames), &Device::Cpu)
}

/// The run of a stream. It begins with the first frames, which tell the batch size.
fn begun<'a>(run: &'a mut Option<Run>, plan: &Arc<Plan>, x: &Tensor) -> Result<&'a mut Run> {
    let batch = x.dim(0)?;
    let run = run.get_or_insert_with(|| Run::new(plan, batch));
    if run.batch() != batch {
        bail!("expected a batch of {}, found {batch}", run.batch());
    }
    Ok(run)
}

struct Encoder {
    planned: Arc<Planned>,
    run: Option<Run>,
    /// New frames of a latent.
    frames: Vec<f32>,
}

impl Encoder {
    fn push(&mut self, mel: &Tensor) -> Result<()> {
        self.planned.check_mel(mel)?;
        begun(&mut self.run, &self.planned.encoder, mel)?.push(0, &to_frames(mel)?);
        Ok(())
    }

    /// The means of the new latent frames.
    fn take(&mut self) -> Result<FactorMap<Tensor>> {
        let mut means = FactorMap::default();
        let Some(run) = &mut self.run else {
            return Ok(means);
        };
        for (output, (factor, sizes)) in self.planned.latents.iter().enumerate() {
            self.frames.clear();
            if run.take(output, &mut self.frames) > 0 {
                let raw = raw_sizes(*sizes);
                means.insert(
                    factor,
                    to_tensor(&self.frames, run.batch(), raw, sizes.channels)?,
                );
            }
        }
        Ok(means)
    }
}

impl StreamEncoder for Encoder {
    fn step(&mut self, mel: &Tensor) -> Result<FactorMap<Tensor>> {
        self.push(mel)?;
        self.run.iter_mut().for_each(Run::step);
        self.take()
    }

    fn finish(&mut self, mel: Option<&Tensor>) -> Result<FactorMap<Tensor>> {
        if let Some(mel) = mel {
            self.push(mel)?;
        }
        self.run.iter_mut().for_each(Run::finish);
        let means = self.take();
        self.reset();
        means
    }

    fn reset(&mut self) {
        self.run.iter_mut().for_each(Run::reset);
    }
}

struct Decoder {
    planned: Arc<Planned>,
    run: Option<Run>,
    /// New frames of the mel.
    frames: Vec<f32>,
}

impl Decoder {
    fn push(&mut self, latents: &FactorMap<Tensor>) -> Result<()> {
        for (factor, latent) in latents.iter() {
            let known = self.planned.latents.iter();
            let Some((input, (_, sizes))) =
                known.enumerate().find(|(_, (known, _))| *known == factor)
            else {
                bail!("expected no {factor} latent, found one");
            };
            check(factor, latent, *sizes)?;
            begun(&mut self.run, &self.planned.decoder, latent)?.push(input, &to_frames(latent)?);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Option<Tensor>> {
        let Some(run) = &mut self.run else {
            return Ok(None);
        };
        self.frames.clear();
        match run.take(0, &mut self.frames) {
            0 => Ok(None),
            _ => self.planned.mel_tensor(&self.frames, run.batch()).map(Some),
        }
    }
}

impl StreamDecoder for Decoder {
    fn step(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>> {
        self.push(latents)?;
        self.run.iter_mut().for_each(Run::step);
        self.take()
    }

    fn finish(&mut self, latents: &FactorMap<Tensor>) -> Result<Option<Tensor>> {
        self.push(latents)?;
        self.run.iter_mut().for_each(Run::finish);
        let mel = self.take();
        self.reset();
        mel
    }

    fn reset(&mut self) {
        self.run.iter_mut().for_each(Run::reset);
    }
}
