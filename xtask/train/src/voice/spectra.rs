//! Differentiable spectra, and losses on them.
//!
//! A clip is cut into hops; a frame is a few neighbouring hops, and its Fourier transform a product with a matrix.
//!
//! Legend of shapes: B batch, L samples, F frames, K bins, M mel bands.

use std::f64::consts::TAU;

use anyhow::{Result, ensure};
use candle_core::{D, DType, Device, Tensor};
use vocoder::conv::exactly;
use vocoder::{MEL_FLOOR, MelConfig, MelFilterBank};

/// Transform lengths of the multi-resolution STFT loss, the longest first.
pub const STFT_SIZES: [usize; 3] = [2048, 1024, 512];

/// Hops in a transform's length.
const OVERLAP: usize = 4;

/// Added to powers, so that silence has a gradient: magnitudes are at least 1e-5.
const POWER_FLOOR: f64 = 1e-10;

/// Magnitudes of a short-time Fourier transform with a periodic Hann window.
pub struct Magnitudes {
    hop_length: usize,
    /// Windowed cosines, then sines: (n_fft, 2 * K).
    basis: Tensor,
}

impl Magnitudes {
    /// Transforms of `n_fft` samples, a quarter of that apart.
    ///
    /// # Errors
    ///
    /// Returns an error if `n_fft` is not a multiple of 4.
    pub fn new(n_fft: usize, dtype: DType, device: &Device) -> Result<Self> {
        ensure!(
            n_fft > 0 && n_fft.is_multiple_of(OVERLAP),
            "expected a transform length that is a multiple of {OVERLAP}, found {n_fft}"
        );
        let bins = n_fft / 2 + 1;
        let step = TAU / n_fft as f64;
        let mut basis = Vec::with_capacity(n_fft * 2 * bins);
        for n in 0..n_fft {
            let window = 0.5 - 0.5 * (step * n as f64).cos();
            let phase = |bin: usize| step * (n * bin % n_fft) as f64;
            basis.extend((0..bins).map(|bin| window * phase(bin).cos()));
            basis.extend((0..bins).map(|bin| window * phase(bin).sin()));
        }
        let basis = Tensor::from_vec(basis, (n_fft, 2 * bins), &Device::Cpu)?;
        Ok(Self {
            hop_length: n_fft / OVERLAP,
            basis: basis.to_dtype(dtype)?.to_device(device)?,
        })
    }

    /// Samples (B, 1, L) to the magnitudes (B, F, K) of all frames that lie completely within them.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer samples than a frame has.
    pub fn of(&self, samples: &Tensor) -> Result<Tensor> {
        let (batch, _, length) = samples.dims3()?;
        let (n_fft, values) = self.basis.dims2()?;
        ensure!(
            length >= n_fft,
            "expected at least {n_fft} samples, found {length}"
        );
        let (hop, bins) = (self.hop_length, values / 2);
        let hops = length / hop;
        let frames = hops + 1 - OVERLAP;
        let samples = samples
            .narrow(D::Minus1, 0, hops * hop)?
            .reshape((batch, hops, hop))?;
        let parts = (0..OVERLAP)
            .map(|part| samples.narrow(1, part, frames))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let framed = Tensor::cat(&parts, 2)?
            .reshape((batch * frames, n_fft))?
            .contiguous()?;
        // TF32 rounding would hide the quiet bands of loud frames.
        let spectra = exactly(|| framed.matmul(&self.basis))?;
        let power = (spectra.narrow(1, 0, bins)?.sqr()? + spectra.narrow(1, bins, bins)?.sqr()?)?;
        Ok((power + POWER_FLOOR)?
            .sqrt()?
            .reshape((batch, frames, bins))?)
    }
}

/// Differentiable log-mels, equal to those of [`vocoder::MelSpectrogram`] except for the frames at the ends.
pub struct LogMels {
    magnitudes: Magnitudes,
    /// (K, M).
    filters: Tensor,
}

impl LogMels {
    /// Log-mels with this configuration.
    ///
    /// # Errors
    ///
    /// Returns an error if the configuration is not valid, or its hop not a quarter of its window.
    pub fn new(config: &MelConfig, dtype: DType, device: &Device) -> Result<Self> {
        ensure!(
            config.hop_length * OVERLAP == config.n_fft,
            "expected a hop of a quarter of {} samples, found {}",
            config.n_fft,
            config.hop_length
        );
        let bank = MelFilterBank::new(config)?;
        let (bins, bands) = (bank.n_bins(), bank.n_mels());
        let mut filters = vec![0.0; bins * bands];
        for (bin, filters) in filters.chunks_exact_mut(bands).enumerate() {
            let mut magnitude = vec![0.0; bins];
            magnitude[bin] = 1.0;
            bank.apply(&magnitude, filters);
        }
        let filters = Tensor::from_vec(filters, (bins, bands), &Device::Cpu)?;
        Ok(Self {
            magnitudes: Magnitudes::new(config.n_fft, dtype, device)?,
            filters: filters.to_dtype(dtype)?.to_device(device)?,
        })
    }

    /// Samples (B, 1, L) to the log-mels (B, F, M) of all frames that lie completely within them.
    ///
    /// # Errors
    ///
    /// Returns an error if there are fewer samples than a frame has.
    pub fn of(&self, samples: &Tensor) -> Result<Tensor> {
        let magnitudes = self.magnitudes.of(samples)?;
        let (batch, frames, bins) = magnitudes.dims3()?;
        let flat = magnitudes.reshape((batch * frames, bins))?;
        let mels = exactly(|| flat.matmul(&self.filters))?;
        let bands = self.filters.dim(1)?;
        Ok(mels
            .maximum(f64::from(MEL_FLOOR))?
            .log()?
            .reshape((batch, frames, bands))?)
    }

    /// The mean absolute difference of the log-mels, in nepers.
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes differ or are too short.
    pub fn distance(&self, generated: &Tensor, real: &Tensor) -> Result<Tensor> {
        mean(&(self.of(generated)? - self.of(real)?)?.abs()?)
    }
}

/// The multi-resolution STFT loss of Yamamoto, Song and Kim, "Parallel WaveGAN", ICASSP 2020: spectral convergence plus the
/// mean absolute difference of log-magnitudes, a mean over some transform lengths.
pub struct StftLoss(Vec<Magnitudes>);

impl StftLoss {
    /// With transforms of [`STFT_SIZES`].
    ///
    /// # Errors
    ///
    /// Returns an error if tensors cannot be made on the device.
    pub fn new(dtype: DType, device: &Device) -> Result<Self> {
        let sizes = STFT_SIZES.into_iter();
        sizes
            .map(|n_fft| Magnitudes::new(n_fft, dtype, device))
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The loss of generated samples (B, 1, L).
    ///
    /// # Errors
    ///
    /// Returns an error if the shapes differ or are too short.
    pub fn distance(&self, generated: &Tensor, real: &Tensor) -> Result<Tensor> {
        let terms = self
            .0
            .iter()
            .map(|magnitudes| {
                let (generated, real) = (magnitudes.of(generated)?, magnitudes.of(real)?);
                let length = |x: &Tensor| -> Result<Tensor> {
                    // Keeps the gradient finite at a distance of zero.
                    Ok((sum(&x.sqr()?)? + f64::EPSILON)?.sqrt()?)
                };
                let convergence = (length(&(&real - &generated)?)? / length(&real)?)?;
                let logarithms = (generated.log()? - real.log()?)?.abs()?;
                Ok((convergence + mean(&logarithms)?)?)
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::stack(&terms, 0)?.mean_all()?)
    }
}

/// The log-spectral distance in dB (Gray and Markel, "Distance Measures for Speech Processing", 1976): the root of the mean
/// squared difference of a frame's log-magnitudes, averaged over frames of 2048 samples.
///
/// # Errors
///
/// Returns an error if the shapes differ or are too short.
pub fn log_spectral_distance_db(generated: &Tensor, real: &Tensor) -> Result<f32> {
    let magnitudes = Magnitudes::new(STFT_SIZES[0], real.dtype(), real.device())?;
    let difference = (magnitudes.of(generated)?.log()? - magnitudes.of(real)?.log()?)?;
    let decibels = (difference * (20.0 / std::f64::consts::LN_10))?;
    let by_frame = decibels.sqr()?.mean(D::Minus1)?.sqrt()?;
    Ok(by_frame.mean_all()?.to_dtype(DType::F32)?.to_scalar()?)
}

/// The sum of all values in two stages, which a GPU computes in parallel.
fn sum(x: &Tensor) -> candle_core::Result<Tensor> {
    x.sum(D::Minus1)?.sum_all()
}

fn mean(x: &Tensor) -> Result<Tensor> {
    Ok((sum(x)? / x.elem_count() as f64)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wave::{digest, wave};
    use candle_core::Var;
    use vocoder::MelSpectrogram;

    #[track_caller]
    fn assert_close(found: f64, expected: f64, tolerance: f64) {
        let tolerance = tolerance * expected.abs().max(1.0);
        assert!(
            (found - expected).abs() < tolerance,
            "{found}, expected {expected}"
        );
    }

    // `wave` and `digest` as in spectral_norm.rs; after that:
    // def magnitudes(x, n):
    //     s = torch.stft(x[:, 0], n, n // 4, n, torch.hann_window(n), center=False, return_complex=True)
    //     return (s.real**2 + s.imag**2 + 1e-10).sqrt().transpose(1, 2)
    // real = wave(2, 1, 4096, phase=0.1)
    // fake = wave(2, 1, 4096, phase=0.2).requires_grad_()
    // m = magnitudes(fake, 512)
    // print("magnitudes", list(m.shape), digest(m), m[0, 0, 3].item())
    // def stft_loss(fake, real):
    //     total = 0
    //     for n in (2048, 1024, 512):
    //         f, r = magnitudes(fake, n), magnitudes(real, n)
    //         total = total + torch.linalg.vector_norm(r - f) / torch.linalg.vector_norm(r)
    //         total = total + (f.log() - r.log()).abs().mean()
    //     return total / 3
    // loss = stft_loss(fake, real)
    // (g,) = torch.autograd.grad(loss, fake)
    // print("stft", loss.item(), digest(g))
    // def hz(mel):
    //     return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * math.log(6.4) / 27))
    // edges = hz(torch.arange(130) / 129 * (15 + 27 * math.log(11.025) / math.log(6.4)))
    // bins = torch.arange(1025) * 22050 / 2048
    // low, mid, high = (edges[i : 128 + i, None] for i in range(3))
    // fb = torch.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)).clamp(min=0) * 2 / (high - low)
    // def log_mel(x):
    //     return (magnitudes(x, 2048) @ fb.T).clamp(min=1e-5).log()
    // loss = (log_mel(fake) - log_mel(real)).abs().mean()
    // (g,) = torch.autograd.grad(loss, fake)
    // print("mel", loss.item(), digest(g))
    #[test]
    fn spectra_losses_and_gradients_equal_pytorchs() -> Result<()> {
        let real = wave(&[2, 1, 4096], 0.1)?;
        let generated = Var::from_tensor(&wave(&[2, 1, 4096], 0.2)?)?;
        let magnitudes = Magnitudes::new(512, DType::F64, &Device::Cpu)?.of(&generated)?;
        assert_eq!(magnitudes.dims(), [2, 29, 257]);
        assert_close(digest(&magnitudes)?, 1239.9568568315538, 1e-9);
        let found: f64 = magnitudes.get(0)?.get(0)?.get(3)?.to_scalar()?;
        assert_close(found, 4.627197453450818, 1e-9);

        let stft = StftLoss::new(DType::F64, &Device::Cpu)?.distance(&generated, &real)?;
        assert_close(stft.to_scalar()?, 0.2003890648950235, 1e-9);
        let gradients = stft.backward()?;
        let gradient = gradients.get(&generated).unwrap();
        assert_close(digest(gradient)?, 0.7888566630181291, 1e-8);

        // Our filters have 32 bits.
        let mels = LogMels::new(&MelConfig::default(), DType::F64, &Device::Cpu)?;
        let mel = mels.distance(&generated, &real)?;
        assert_close(mel.to_scalar()?, 0.03871996551689307, 1e-6);
        let gradients = mel.backward()?;
        let gradient = gradients.get(&generated).unwrap();
        assert_close(digest(gradient)?, 0.2034048672018131, 1e-6);
        Ok(())
    }

    /// A loud chord with quiet noise.
    fn music(samples: usize) -> Vec<f32> {
        (0..samples)
            .map(|n| {
                let tone = |hz: f32| (TAU as f32 * hz * n as f32 / 22_050.0).sin();
                let noise = (n as f32 * n as f32 * 0.37).sin();
                0.3 * (tone(110.0) + tone(277.2)) + 1e-3 * noise
            })
            .collect()
    }

    #[test]
    fn log_mels_equal_the_mel_spectrogram() -> Result<()> {
        let samples = music(16 * 512);
        let config = MelConfig::default();
        let expected = MelSpectrogram::new(&config)?.log_mel(&samples);
        // Padding of 768 samples puts the spectrogram's third frame at sample 256.
        let samples = Tensor::from_slice(&samples[256..], (1, 1, 7936), &Device::Cpu)?;
        let found = LogMels::new(&config, DType::F32, &Device::Cpu)?.of(&samples)?;
        let found = found.squeeze(0)?.to_vec2::<f32>()?;
        assert_eq!(found.len(), 12);
        for (frame, found) in found.iter().enumerate() {
            for (found, expected) in found.iter().zip(expected.frame(frame + 2)) {
                assert!((found - expected).abs() < 2e-3, "{found}, {expected}");
            }
        }
        Ok(())
    }

    #[test]
    fn silence_has_finite_gradients() -> Result<()> {
        let real = Tensor::from_vec(music(4096), (1, 1, 4096), &Device::Cpu)?;
        let generated = Var::zeros((1, 1, 4096), DType::F32, &Device::Cpu)?;
        let mel = LogMels::new(&MelConfig::default(), DType::F32, &Device::Cpu)?;
        let stft = StftLoss::new(DType::F32, &Device::Cpu)?;
        for real in [real, generated.zeros_like()?] {
            for loss in [
                mel.distance(&generated, &real)?,
                stft.distance(&generated, &real)?,
            ] {
                let gradients = loss.backward()?;
                let gradient = gradients.get(&generated).unwrap().flatten_all()?;
                assert!(gradient.to_vec1::<f32>()?.iter().all(|g| g.is_finite()));
            }
        }
        Ok(())
    }

    #[test]
    fn half_the_level_is_six_decibels_away() -> Result<()> {
        let real = Tensor::from_vec(music(8192), (1, 1, 8192), &Device::Cpu)?;
        let distance = log_spectral_distance_db(&(&real * 0.5)?, &real)?;
        assert!((distance - 6.02).abs() < 0.05, "{distance}");
        Ok(())
    }
}
