//! The trained tensors, created on first request from a seed and kept in the order of their names.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use anyhow::Context;
use candle_core::{DType, Device, Result, Shape, Tensor, Var, bail};
use candle_nn::Init;
use candle_nn::var_builder::{SimpleBackend, VarBuilder};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// Variables by name. Clones share them.
#[derive(Clone)]
pub struct Parameters {
    seed: u64,
    vars: Arc<Mutex<BTreeMap<String, Var>>>,
}

impl Parameters {
    /// Starts without variables. The initial value of a variable depends only on `seed` and its name.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            vars: Arc::default(),
        }
    }

    /// A builder that creates variables when a network requests them.
    pub fn builder(&self, device: &Device) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), DType::F32, device.clone())
    }

    /// Sets every variable to the weight of that name. If training uses weight norm, the plain weight of a model file
    /// is split into magnitude and direction.
    ///
    /// # Errors
    ///
    /// Returns an error if a weight is missing or has another shape.
    pub fn set(&self, weights: &HashMap<String, Tensor>) -> anyhow::Result<()> {
        for (name, var) in self.vars() {
            let (plain, magnitude) = match (name.strip_suffix("_g"), name.strip_suffix("_v")) {
                (Some(plain), _) => (plain, true),
                (_, Some(plain)) => (plain, false),
                _ => (name.as_str(), false),
            };
            let weight = weights
                .get(plain)
                .with_context(|| format!("expected a weight \"{plain}\", found none"))?
                // Model files store 16-bit floats.
                .to_dtype(var.dtype())?;
            let weight = match magnitude {
                true => weight
                    .sqr()?
                    .flatten_from(1)?
                    .sum(1)?
                    .sqrt()?
                    .reshape(var.shape())?,
                false => weight,
            };
            anyhow::ensure!(
                weight.shape() == var.shape(),
                "{plain}: expected shape {:?}, found {:?}",
                var.shape(),
                weight.shape()
            );
            var.set(&weight.to_device(var.device())?)?;
        }
        Ok(())
    }

    /// Names and variables, in the order of the names.
    pub fn vars(&self) -> BTreeMap<String, Var> {
        self.vars
            .lock()
            .expect("no thread panics while it holds the variables")
            .clone()
    }
}

impl SimpleBackend for Parameters {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut vars = self
            .vars
            .lock()
            .expect("no thread panics while it holds the variables");
        if let Some(var) = vars.get(name) {
            if var.shape() != &shape {
                bail!("{name}: expected shape {shape:?}, found {:?}", var.shape());
            }
            return Ok(var.as_tensor().clone());
        }
        let count = shape.elem_count();
        let values: Vec<f64> = match init {
            Init::Const(value) => vec![value; count],
            Init::Uniform { lo, up } => {
                let digest = Sha256::digest([&self.seed.to_le_bytes(), name.as_bytes()].concat());
                let mut rng = StdRng::from_seed(digest.into());
                (0..count).map(|_| rng.random_range(lo..up)).collect()
            }
            other => bail!("{name}: expected a constant or uniform start, found {other:?}"),
        };
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)?;
        let tensor = var.as_tensor().clone();
        vars.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        bail!("{name}: a variable cannot be created without a shape")
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.vars
            .lock()
            .expect("no thread panics while it holds the variables")
            .contains_key(name)
    }
}
