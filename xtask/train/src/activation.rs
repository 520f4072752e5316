//! The exponential function and what is made of it, in a form that compiles to vector instructions. The library's functions take
//! several times as long, and the gates of a layer need three for each unit and frame.

/// Adding this number to a smaller one leaves the nearest integer in the lowest bits: 1.5 * 2^23.
const ROUND: f32 = 12_582_912.0;

/// Arguments beyond are limited, so that results are finite and not 0.
const LIMIT: f32 = 87.0;

/// ln 2 in two parts; the first has few bits, so that a product with a small integer is exact.
const LN_2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];

/// `e^x`, 2e-7 off in relation to the result for arguments up to 87 either way.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-LIMIT, LIMIT);
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let power = rounded - ROUND;
    let rest = x - power * LN_2[0] - power * LN_2[1];
    // Taylor series for a rest of at most ln 2 / 2.
    let mut sum = 1.0 / 5040.0;
    for factor in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        sum = sum * rest + factor;
    }
    // The integer goes into the exponent of a float.
    sum * f32::from_bits((rounded.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// `1 / (1 + e^-x)`.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Hyperbolic tangent.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    2.0 * sigmoid(2.0 * x) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_those_of_the_library() {
        for step in -8700..=8700 {
            let x = step as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / exact - 1.0).abs() < 3e-7,
                "e^{x}: {} {exact}",
                exp(x)
            );
            assert!((f64::from(tanh(x)) - f64::from(x).tanh()).abs() < 3e-7);
        }
        assert_eq!((sigmoid(200.0), tanh(-200.0)), (1.0, -1.0));
        assert!(sigmoid(-200.0) > 0.0);
    }
}
