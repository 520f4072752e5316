//! The convolution compared with PyTorch, finite differences, and candle's own operations.

mod common;

use candle_core::{DType, Device, Result, Tensor, Var};
use common::{max_difference, noise};
use vocoder::conv::{
    Conv2dSpec, PadMode, conv_transpose2d, conv_transpose2d_composed, conv2d, conv2d_composed,
};

/// One convolution of operands from [`noise`], with PyTorch's result (`data/conv.py`).
struct Case {
    name: String,
    input: Vec<usize>,
    weight: Vec<usize>,
    spec: Conv2dSpec,
    transposed: bool,
    output: Tensor,
}

struct Operands {
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
}

impl Case {
    fn all() -> Vec<Self> {
        let cases: Vec<serde_json::Value> =
            serde_json::from_str(include_str!("data/conv.json")).unwrap();
        cases.iter().map(Self::read).collect()
    }

    fn read(json: &serde_json::Value) -> Self {
        let sizes = |name: &str| -> Vec<usize> {
            let values = json[name].as_array().unwrap();
            values
                .iter()
                .map(|v| v.as_u64().unwrap() as usize)
                .collect()
        };
        let pair = |name: &str| (sizes(name)[0], sizes(name)[1]);
        let output: Vec<f64> = json["output"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_f64().unwrap())
            .collect();
        Self {
            name: json["name"].as_str().unwrap().to_string(),
            input: sizes("input"),
            weight: sizes("weight"),
            spec: Conv2dSpec {
                stride: pair("stride"),
                dilation: pair("dilation"),
                padding: pair("padding"),
                pad_mode: match json["pad_mode"].as_str().unwrap() {
                    "zero" => PadMode::Zero,
                    "replicate" => PadMode::Replicate,
                    "reflect" => PadMode::Reflect,
                    mode => panic!("unknown padding mode {mode}"),
                },
                input_slope: json["input_slope"].as_f64(),
                output_slope: json["output_slope"].as_f64(),
            },
            transposed: json["transposed"].as_bool().unwrap(),
            output: Tensor::from_vec(output, sizes("output_shape"), &Device::Cpu).unwrap(),
        }
    }

    fn operands(&self, dtype: DType) -> Result<Operands> {
        Ok(Operands {
            input: noise(&self.input, 1, dtype)?,
            weight: noise(&self.weight, 2, dtype)?,
            bias: noise(&[self.weight[usize::from(self.transposed)]], 3, dtype)?,
        })
    }

    fn run(
        &self,
        Operands {
            input,
            weight,
            bias,
        }: &Operands,
    ) -> Result<Tensor> {
        if self.transposed {
            conv_transpose2d(input, weight, bias, self.spec)
        } else {
            conv2d(input, weight, bias, self.spec)
        }
    }

    fn run_composed(
        &self,
        Operands {
            input,
            weight,
            bias,
        }: &Operands,
    ) -> Result<Tensor> {
        if self.transposed {
            conv_transpose2d_composed(input, weight, bias, self.spec)
        } else {
            conv2d_composed(input, weight, bias, self.spec)
        }
    }
}

/// The same values in another memory order: with the last two axes transposed.
fn transposed_copy(x: &Tensor) -> Result<Tensor> {
    let stored = x.transpose(2, 3)?.contiguous()?.transpose(2, 3)?;
    if x.dim(2)? > 1 && x.dim(3)? > 1 {
        assert!(!stored.is_contiguous());
    }
    Ok(stored)
}

/// The same values as a slice of a larger tensor, on every axis.
fn narrowed_copy(x: &Tensor) -> Result<Tensor> {
    let mut large = x.clone();
    for dim in 0..x.rank() {
        large = large.pad_with_zeros(dim, 2, 1)?;
    }
    let mut part = ((large * 1.0)? + 0.25)?;
    for dim in 0..x.rank() {
        part = part.narrow(dim, 2, x.dim(dim)?)?;
    }
    part - 0.25
}

/// A scalar that depends on every output, whose gradient arrives at the convolution transposed.
fn loss(output: &Tensor) -> Result<Tensor> {
    let output = output.transpose(2, 3)?;
    (&output * noise(output.dims(), 4, output.dtype())?)?.sum_all()
}

#[test]
fn forward_equals_pytorch() -> Result<()> {
    for case in Case::all() {
        for (dtype, tolerance) in [(DType::F64, 1e-7), (DType::F32, 2e-6)] {
            let output = case.run(&case.operands(dtype)?)?;
            let difference = max_difference(&output, &case.output.to_dtype(dtype)?)?;
            assert!(difference < tolerance, "{}: off by {difference}", case.name);
        }
    }
    Ok(())
}

#[test]
fn forward_does_not_depend_on_memory_order() -> Result<()> {
    for case in Case::all() {
        let Operands {
            input,
            weight,
            bias,
        } = case.operands(DType::F64)?;
        let layouts: [fn(&Tensor) -> Result<Tensor>; 2] = [transposed_copy, narrowed_copy];
        for layout in layouts {
            let output = case.run(&Operands {
                input: layout(&input)?,
                weight: layout(&weight)?,
                bias: bias.broadcast_as((2, bias.dim(0)?))?.get(1)?,
            })?;
            let difference = max_difference(&output, &case.output)?;
            assert!(difference < 1e-7, "{}: off by {difference}", case.name);
        }
    }
    Ok(())
}

#[test]
fn gradients_equal_finite_differences() -> Result<()> {
    for case in Case::all() {
        let Operands {
            input,
            weight,
            bias,
        } = case.operands(DType::F64)?;
        let vars = [&input, &weight, &bias].map(|t| Var::from_tensor(t).unwrap());
        let at = |replaced: usize, value: &Tensor| -> Result<f64> {
            let pick = |i: usize| {
                if i == replaced {
                    value
                } else {
                    vars[i].as_tensor()
                }
            };
            let operands = Operands {
                input: pick(0).clone(),
                weight: pick(1).clone(),
                bias: pick(2).clone(),
            };
            loss(&case.run(&operands)?)?.to_scalar()
        };
        let gradients = loss(&case.run(&Operands {
            input: transposed_copy(&vars[0])?,
            weight: transposed_copy(&vars[1])?,
            bias: vars[2].as_tensor().clone(),
        })?)?
        .backward()?;
        for (i, var) in vars.iter().enumerate() {
            let gradient = gradients.get(var).expect("a gradient for every operand");
            assert_eq!(gradient.dims(), var.dims());
            let gradient: Vec<f64> = gradient.flatten_all()?.to_vec1()?;
            let values: Vec<f64> = var.flatten_all()?.to_vec1()?;
            for (at_value, &gradient) in gradient.iter().enumerate() {
                const STEP: f64 = 1e-5;
                let moved = |by: f64| -> Result<f64> {
                    let mut values = values.clone();
                    values[at_value] += by;
                    at(i, &Tensor::from_vec(values, var.dims(), &Device::Cpu)?)
                };
                let expected = (moved(STEP)? - moved(-STEP)?) / (2.0 * STEP);
                assert!(
                    (gradient - expected).abs() < 1e-6,
                    "{}: gradient {at_value} of operand {i} is {gradient}, expected {expected}",
                    case.name
                );
            }
        }
    }
    Ok(())
}

#[test]
fn composed_operations_agree() -> Result<()> {
    for case in Case::all() {
        let Operands {
            input,
            weight,
            bias,
        } = case.operands(DType::F64)?;
        let vars = [&input, &weight, &bias].map(|t| Var::from_tensor(t).unwrap());
        let operands = Operands {
            input: vars[0].as_tensor().clone(),
            weight: vars[1].as_tensor().clone(),
            bias: vars[2].as_tensor().clone(),
        };
        let (own, composed) = (case.run(&operands)?, case.run_composed(&operands)?);
        let difference = max_difference(&own, &composed)?;
        assert!(difference < 1e-12, "{}: off by {difference}", case.name);
        let (own, composed) = (loss(&own)?.backward()?, loss(&composed)?.backward()?);
        for (i, var) in vars.iter().enumerate() {
            let difference = max_difference(own.get(var).unwrap(), composed.get(var).unwrap())?;
            assert!(
                difference < 1e-12,
                "{}: gradient of operand {i} off by {difference}",
                case.name
            );
        }
    }
    Ok(())
}

/// Sizes as in the networks, which exercise tiles, phases and remainders of the fast path.
#[test]
fn large_layers_equal_composed_ones() -> Result<()> {
    let same = |padding| Conv2dSpec {
        padding,
        ..Conv2dSpec::default()
    };
    let cases = [
        ([3, 24, 37, 45], [24, 24, 3, 3], same((1, 1)), false),
        ([2, 1, 64, 33], [24, 1, 5, 3], same((2, 1)), false),
        ([1, 5, 1, 3001], [7, 5, 1, 7], same((0, 3)), false),
        (
            [2, 12, 64, 31],
            [17, 12, 4, 3],
            Conv2dSpec {
                stride: (4, 1),
                ..same((0, 1))
            },
            false,
        ),
        (
            [1, 9, 1, 401],
            [9, 6, 1, 16],
            Conv2dSpec {
                stride: (1, 8),
                ..same((0, 4))
            },
            true,
        ),
    ];
    for (input, weight, spec, transposed) in cases {
        let case = Case {
            name: format!("{input:?} by {weight:?}"),
            input: input.to_vec(),
            weight: weight.to_vec(),
            spec,
            transposed,
            output: Tensor::zeros(1, DType::F32, &Device::Cpu)?,
        };
        let Operands {
            input,
            weight,
            bias,
        } = case.operands(DType::F32)?;
        let vars = [&input, &weight, &bias].map(|t| Var::from_tensor(t).unwrap());
        let operands = Operands {
            input: vars[0].as_tensor().clone(),
            weight: vars[1].as_tensor().clone(),
            bias: vars[2].as_tensor().clone(),
        };
        let (own, composed) = (case.run(&operands)?, case.run_composed(&operands)?);
        assert!(max_difference(&own, &composed)? < 1e-4, "{}", case.name);
        let (own, composed) = (loss(&own)?.backward()?, loss(&composed)?.backward()?);
        for var in &vars {
            let (own, composed) = (own.get(var).unwrap(), composed.get(var).unwrap());
            let scale: f32 = composed.abs()?.flatten_all()?.max(0)?.to_scalar()?;
            assert!(
                max_difference(own, composed)? < 1e-5 * f64::from(scale),
                "{}",
                case.name
            );
        }
    }
    Ok(())
}

#[test]
fn operands_that_do_not_fit_are_errors() -> Result<()> {
    let x = |shape: &[usize]| noise(shape, 1, DType::F32);
    let (input, weight, bias) = (x(&[1, 2, 5, 5])?, x(&[3, 2, 3, 3])?, x(&[3])?);
    let spec = Conv2dSpec::default();
    assert!(conv2d(&input, &weight, &bias, spec).is_ok());

    let refuse = |input: &Tensor, weight: &Tensor, bias: &Tensor, spec: Conv2dSpec| {
        assert!(conv2d(input, weight, bias, spec).is_err());
        assert!(conv2d_composed(input, weight, bias, spec).is_err());
    };
    refuse(&x(&[2, 5, 5])?, &weight, &bias, spec);
    refuse(&input, &x(&[3, 2, 9])?, &bias, spec);
    refuse(&input, &x(&[3, 4, 3, 3])?, &bias, spec);
    refuse(&input, &weight, &x(&[2])?, spec);
    refuse(&input, &weight, &x(&[1, 3])?, spec);
    refuse(&input, &weight.to_dtype(DType::F64)?, &bias, spec);
    refuse(&x(&[1, 2, 2, 5])?, &weight, &bias, spec);
    refuse(&x(&[1, 2, 0, 5])?, &weight, &bias, spec);
    refuse(&x(&[1, 0, 5, 5])?, &x(&[3, 0, 3, 3])?, &bias, spec);
    refuse(&input, &x(&[3, 2, 0, 3])?, &bias, spec);
    refuse(&input, &x(&[0, 2, 3, 3])?, &x(&[0])?, spec);
    let reflect = |padding| Conv2dSpec {
        padding,
        pad_mode: PadMode::Reflect,
        ..spec
    };
    refuse(&input, &weight, &bias, reflect((5, 0)));
    refuse(&input, &weight, &bias, reflect((0, 5)));
    assert!(conv2d(&input, &weight, &bias, reflect((4, 4))).is_ok());
    for (stride, dilation) in [
        ((0, 1), (1, 1)),
        ((1, 0), (1, 1)),
        ((1, 1), (0, 1)),
        ((1, 1), (1, 3)),
    ] {
        let spec = Conv2dSpec {
            stride,
            dilation,
            ..spec
        };
        refuse(&input, &weight, &bias, spec);
    }
    for slope in [0.0, -0.1, f64::NAN] {
        let input_slope = Some(slope);
        refuse(
            &input,
            &weight,
            &bias,
            Conv2dSpec {
                input_slope,
                ..spec
            },
        );
        let output_slope = Some(slope);
        refuse(
            &input,
            &weight,
            &bias,
            Conv2dSpec {
                output_slope,
                ..spec
            },
        );
    }
    let integers = |t: &Tensor| t.to_dtype(DType::U32);
    assert!(
        conv2d(
            &integers(&input)?,
            &integers(&weight)?,
            &integers(&bias)?,
            spec
        )
        .is_err()
    );
    Ok(())
}

#[test]
fn transposed_operands_that_do_not_fit_are_errors() -> Result<()> {
    let x = |shape: &[usize]| noise(shape, 1, DType::F32);
    let (input, weight, bias) = (x(&[1, 2, 1, 5])?, x(&[2, 3, 1, 4])?, x(&[3])?);
    let spec = Conv2dSpec {
        stride: (1, 2),
        padding: (0, 1),
        ..Conv2dSpec::default()
    };
    assert!(conv_transpose2d(&input, &weight, &bias, spec).is_ok());

    let refuse = |input: &Tensor, weight: &Tensor, bias: &Tensor, spec: Conv2dSpec| {
        assert!(conv_transpose2d(input, weight, bias, spec).is_err());
        assert!(conv_transpose2d_composed(input, weight, bias, spec).is_err());
    };
    refuse(&x(&[2, 1, 5])?, &weight, &bias, spec);
    refuse(&input, &x(&[2, 3, 4])?, &bias, spec);
    refuse(&input, &x(&[3, 3, 1, 4])?, &bias, spec);
    refuse(&input, &weight, &x(&[2])?, spec);
    refuse(&x(&[1, 2, 1, 0])?, &weight, &bias, spec);
    refuse(&input, &x(&[2, 3, 1, 0])?, &bias, spec);
    refuse(&input, &weight.to_dtype(DType::F64)?, &bias, spec);
    for spec in [
        Conv2dSpec {
            dilation: (1, 2),
            ..spec
        },
        Conv2dSpec {
            pad_mode: PadMode::Reflect,
            ..spec
        },
        Conv2dSpec {
            stride: (1, 0),
            ..spec
        },
        Conv2dSpec {
            padding: (1, 1),
            ..spec
        },
        Conv2dSpec {
            padding: (0, 6),
            ..spec
        },
        Conv2dSpec {
            output_slope: Some(0.0),
            ..spec
        },
    ] {
        refuse(&input, &weight, &bias, spec);
    }
    Ok(())
}
