//! The full-rate speech codec of GSM (ETSI EN 300 961, "GSM 06.10", RPE-LTP): encoder and decoder in one, in floating point. Its
//! quantisers and tables are those of the standard; its fixed-point rounding is not, so that the result is not bit-exact. Sound is
//! brought to the codec's 8 kHz and back.

use super::resample::resample;

const RATE_HZ: u32 = 8000;

/// The codec counts in 16 bits.
const FULL_SCALE: f32 = 32_768.0;

const FRAME: usize = 160;
const SUBFRAME: usize = 40;
const ORDER: usize = 8;

/// Feedback of the filter that removes a constant offset.
const OFFSET_FEEDBACK: f32 = 32_735.0 / 32_768.0;
const PRE_EMPHASIS: f32 = 28_180.0 / 32_768.0;

/// Quantiser of each log-area ratio: factor, offset, lowest and highest code.
const RATIOS: [(f32, f32, f32, f32); ORDER] = [
    (20.0, 0.0, -32.0, 31.0),
    (20.0, 0.0, -32.0, 31.0),
    (20.0, 4.0, -16.0, 15.0),
    (20.0, -5.0, -16.0, 15.0),
    (13.637, 0.184, -8.0, 7.0),
    (15.0, -3.5, -8.0, 7.0),
    (8.334, -0.666, -4.0, 3.0),
    (8.824, -2.235, -4.0, 3.0),
];

/// Where each set of interpolated log-area ratios begins, and its share of this frame's.
const INTERPOLATION: [(usize, f32); 4] = [(0, 0.25), (13, 0.5), (27, 0.75), (40, 1.0)];

/// Delays of the long-term predictor.
const SHORTEST_LAG: usize = 40;
const LONGEST_LAG: usize = 120;

/// Its gains, and the limits between them.
const GAINS: [f32; 4] = [0.1, 0.35, 0.65, 1.0];
const GAIN_LIMITS: [f32; 3] = [0.2, 0.5, 0.8];

/// The weighting filter.
const WEIGHTING: [f32; 11] = [
    -134.0, -374.0, 0.0, 2054.0, 5741.0, 8192.0, 5741.0, 2054.0, 0.0, -374.0, -134.0,
];
const WEIGHTING_SCALE: f32 = 8192.0;

/// One of so many samples is sent, and so many of a subframe.
const GRID: usize = 3;
const PULSES: usize = 13;

pub fn apply(samples: &mut [f32], sample_rate_hz: u32) {
    let mut speech = resample(samples, sample_rate_hz, RATE_HZ);
    let length = speech.len();
    speech.resize(length.next_multiple_of(FRAME), 0.0);
    let mut codec = Codec::default();
    for frame in speech.as_chunks_mut().0 {
        codec.process(frame);
    }
    speech.truncate(length);
    let back = resample(&speech, RATE_HZ, sample_rate_hz);
    samples.fill(0.0);
    for (sample, back) in samples.iter_mut().zip(back) {
        *sample = back;
    }
}

/// What encoder and decoder remember. Both know the same residual.
struct Codec {
    /// The last sample, without and with its offset removed.
    sample: f32,
    centred: f32,
    ratios: [f32; ORDER],
    analysis: [f32; ORDER],
    synthesis: [f32; ORDER],
    /// The decoded residual up to now.
    residual: [f32; LONGEST_LAG],
    output: f32,
}

impl Default for Codec {
    fn default() -> Self {
        Self {
            sample: 0.0,
            centred: 0.0,
            ratios: [0.0; ORDER],
            analysis: [0.0; ORDER],
            synthesis: [0.0; ORDER],
            residual: [0.0; LONGEST_LAG],
            output: 0.0,
        }
    }
}

impl Codec {
    /// Replaces a frame by what the decoder makes of it.
    fn process(&mut self, frame: &mut [f32; FRAME]) {
        for sample in frame.iter_mut() {
            let scaled = (*sample * FULL_SCALE).clamp(-FULL_SCALE, FULL_SCALE - 1.0);
            let centred = scaled - self.sample + OFFSET_FEEDBACK * self.centred;
            *sample = centred - PRE_EMPHASIS * self.centred;
            (self.sample, self.centred) = (scaled, centred);
        }
        let ratios = quantised(reflections(frame));
        let sets = INTERPOLATION.map(|(_, share)| {
            std::array::from_fn(|i| {
                let ratio = (1.0 - share) * self.ratios[i] + share * ratios[i];
                reflection(ratio)
            })
        });
        self.ratios = ratios;
        let set = |place: usize| {
            let index = INTERPOLATION.iter().rposition(|(start, _)| *start <= place);
            &sets[index.unwrap_or(0)]
        };
        for (place, sample) in frame.iter_mut().enumerate() {
            *sample = analyse(*sample, set(place), &mut self.analysis);
        }
        for subframe in frame.as_chunks_mut().0 {
            self.code(subframe);
        }
        for (place, sample) in frame.iter_mut().enumerate() {
            let filtered = synthesise(*sample, set(place), &mut self.synthesis);
            self.output = filtered + PRE_EMPHASIS * self.output;
            *sample = self.output.clamp(-FULL_SCALE, FULL_SCALE - 1.0) / FULL_SCALE;
        }
    }

    /// Replaces the residual of a subframe by the decoded one.
    fn code(&mut self, residual: &mut [f32; SUBFRAME]) {
        let past = |lag: usize| &self.residual[LONGEST_LAG - lag..][..SUBFRAME];
        let product =
            |lag: usize| -> f32 { residual.iter().zip(past(lag)).map(|(a, b)| a * b).sum() };
        let (lag, largest) = (SHORTEST_LAG..=LONGEST_LAG)
            .map(|lag| (lag, product(lag)))
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .expect("there are lags");
        let power: f32 = past(lag).iter().map(|sample| sample * sample).sum();
        let ratio = largest / power.max(f32::MIN_POSITIVE);
        let gain = GAINS[GAIN_LIMITS.iter().filter(|limit| ratio > **limit).count()];
        let predicted: [f32; SUBFRAME] = std::array::from_fn(|i| gain * past(lag)[i]);
        let error: [f32; SUBFRAME] = std::array::from_fn(|i| residual[i] - predicted[i]);
        let pulses = pulses(&weighted(&error));
        for ((sample, predicted), pulse) in residual.iter_mut().zip(predicted).zip(pulses) {
            *sample = predicted + pulse;
        }
        self.residual.copy_within(SUBFRAME.., 0);
        self.residual[LONGEST_LAG - SUBFRAME..].copy_from_slice(residual);
    }
}

/// Reflection coefficients of a frame (Levinson and Durbin).
fn reflections(frame: &[f32; FRAME]) -> [f32; ORDER] {
    let correlation = |lag: usize| -> f64 {
        let products = frame[lag..].iter().zip(frame);
        products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let correlations: [f64; ORDER + 1] = std::array::from_fn(correlation);
    let mut found = [0.0; ORDER];
    let mut error = correlations[0];
    let mut predictor = [0.0f64; ORDER + 1];
    for order in 1..=ORDER {
        if error <= 0.0 {
            break;
        }
        let known: f64 = (1..order)
            .map(|i| predictor[i] * correlations[order - i])
            .sum();
        let reflection = -(correlations[order] + known) / error;
        let before = predictor;
        for i in 1..order {
            predictor[i] = before[i] + reflection * before[order - i];
        }
        predictor[order] = reflection;
        error *= 1.0 - reflection * reflection;
        found[order - 1] = reflection as f32;
    }
    found
}

/// The decoded log-area ratios of reflection coefficients; the logarithm is made of straight lines.
fn quantised(reflections: [f32; ORDER]) -> [f32; ORDER] {
    std::array::from_fn(|i| {
        let reflection = reflections[i];
        let ratio = match reflection.abs() {
            r if r < 0.675 => r,
            r if r < 0.95 => 2.0 * r - 0.675,
            r => 8.0 * r - 6.375,
        };
        let (factor, offset, low, high) = RATIOS[i];
        let code = factor * ratio.copysign(reflection) + offset;
        (code.round().clamp(low, high) - offset) / factor
    })
}

/// The reflection coefficient of a log-area ratio.
fn reflection(ratio: f32) -> f32 {
    let reflection = match ratio.abs() {
        r if r < 0.675 => r,
        r if r < 1.225 => 0.5 * r + 0.3375,
        r => (0.125 * r + 0.796_875).min(0.999),
    };
    reflection.copysign(ratio)
}

/// One sample through the lattice that whitens; `states` are the backward errors of the sample before.
fn analyse(sample: f32, reflections: &[f32; ORDER], states: &mut [f32; ORDER]) -> f32 {
    let (mut forward, mut backward) = (sample, sample);
    for (state, reflection) in states.iter_mut().zip(reflections) {
        let before = std::mem::replace(state, backward);
        backward = before + reflection * forward;
        forward += reflection * before;
    }
    forward
}

/// The inverse of [`analyse`].
fn synthesise(sample: f32, reflections: &[f32; ORDER], states: &mut [f32; ORDER]) -> f32 {
    let mut forward = sample;
    for i in (0..ORDER).rev() {
        forward -= reflections[i] * states[i];
        if i + 1 < ORDER {
            states[i + 1] = states[i] + reflections[i] * forward;
        }
    }
    states[0] = forward;
    forward
}

fn weighted(error: &[f32; SUBFRAME]) -> [f32; SUBFRAME] {
    let half = WEIGHTING.len() / 2;
    std::array::from_fn(|place| {
        let taps = WEIGHTING.iter().enumerate();
        let products =
            taps.filter_map(|(i, tap)| Some(tap * error.get((place + half).checked_sub(i)?)?));
        products.sum::<f32>() / WEIGHTING_SCALE
    })
}

/// The strongest of four grids of pulses, decoded.
fn pulses(error: &[f32; SUBFRAME]) -> [f32; SUBFRAME] {
    let grid = |start: usize| (start..SUBFRAME).step_by(GRID).take(PULSES);
    let energy = |start: usize| -> f32 { grid(start).map(|i| error[i] * error[i]).sum() };
    let start = (0..=GRID)
        .max_by(|a, b| energy(*a).total_cmp(&energy(*b)))
        .expect("there are grids");
    let largest = grid(start).map(|i| error[i].abs()).fold(0.0, f32::max);
    // Six bits: steps of 32 up to 512, then eight for each octave; the top of a step is sent.
    let step = 2f32.powf((largest.max(256.0).log2().floor() - 3.0).max(5.0));
    let largest = ((largest / step).floor() + 1.0) * step - 1.0;
    let mut decoded = [0.0; SUBFRAME];
    for i in grid(start) {
        let code = ((error[i] / largest + 1.0) * 4.0).floor().clamp(0.0, 7.0);
        decoded[i] = (2.0 * code - 7.0) / 8.0 * largest;
    }
    decoded
}
