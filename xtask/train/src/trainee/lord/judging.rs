//! Figures and pictures of a run.

use std::path::Path;

use anyhow::Result;
use candle_core::{Device, Tensor};
use serde_json::json;

use super::LordTrainee;
use crate::lord::conversions::{Figures, Pairs};
use crate::lord::material::ClipSet;
use crate::lord::pictures::{self, Row};
use crate::lord::probe::{self, Labelled};
use crate::preview;
use crate::trainee::Report;

/// Pairs of clips in a validation.
const VALIDATION_PAIRS: usize = 128;

/// Most codes that a probe is fitted to, and tested with.
const PROBE_CODES: usize = 1024;

/// Instruments, and clips, in a preview.
const PREVIEW_INSTRUMENTS: usize = 4;

/// Clips for a figure, and where their content codes come from.
pub(super) struct Judged<'a> {
    pub(super) set: &'a ClipSet,
    mels: &'a Tensor,
    content: Content<'a>,
}

#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Table(&'a Tensor),
    /// As it is after so many steps.
    Encoder(u64),
}

impl LordTrainee {
    /// Whether the encoders give the content codes after `step` steps.
    fn encodes(&self, step: u64) -> bool {
        step > self.recipe.stage_1.steps || self.codes.content.is_none()
    }

    /// Content codes of some clips, without gradients.
    pub(super) fn content(&self, judged: &Judged, clips: &[u32]) -> Result<Tensor> {
        self.in_parts(clips, |places| match judged.content {
            Content::Table(table) => Ok(table.index_select(places, 0)?),
            Content::Encoder(step) => {
                let mels = judged.mels.index_select(places, 0)?;
                self.encode_content(&mels, step)
            }
        })
    }

    /// Runs `work` on as many clips at a time as a step has, and joins the results, detached.
    pub(super) fn in_parts(
        &self,
        clips: &[u32],
        work: impl Fn(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let parts = clips.chunks(self.recipe.batch).map(|clips| {
            let places = Tensor::new(clips, &self.device)?;
            Ok(work(&places)?.detach())
        });
        Ok(Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// Generates clips from content codes with the codes of instruments.
    pub(super) fn generate(&self, content: &Tensor, instruments: &[u32]) -> Result<Tensor> {
        let instruments = Tensor::new(instruments, &self.device)?;
        let rows: Vec<u32> = (0..content.dim(0)? as u32).collect();
        self.in_parts(&rows, |rows| {
            let classes = instruments.index_select(rows, 0)?;
            let classes = self.codes.classes.index_select(&classes, 0)?;
            Ok(self
                .generator
                .forward(&content.index_select(rows, 0)?, &classes)?)
        })
    }

    /// Translates the sources of `pairs` to their instruments.
    fn translate(&self, judged: &Judged, truths: &Tensor, pairs: &Pairs) -> Result<Figures> {
        let content = self.content(judged, &pairs.sources)?;
        let translated = self.generate(&content, &pairs.instruments)?;
        let rows = |mels: &Tensor, clips: &[u32]| -> Result<Tensor> {
            Ok(mels.index_select(&Tensor::new(clips, &self.device)?, 0)?)
        };
        let before = rows(judged.mels, &pairs.sources)?;
        let truths = rows(truths, &pairs.truths)?;
        Figures::of(
            &translated,
            [&before, &truths],
            pairs,
            &self.classifier,
            self.recipe.mel_deviation,
        )
    }

    /// Mean absolute difference of the clips and what is generated from their own codes, in nepers.
    fn reconstruction(&self, judged: &Judged, clips: &[u32]) -> Result<f64> {
        let content = self.content(judged, clips)?;
        let own = clips
            .iter()
            .map(|clip| judged.set.program_of(*clip as usize) as u32);
        let generated = self.generate(&content, &own.collect::<Vec<_>>())?;
        let target = judged
            .mels
            .index_select(&Tensor::new(clips, &self.device)?, 0)?;
        let mean: f32 = (generated - target)?.abs()?.mean_all()?.to_scalar()?;
        Ok(f64::from(mean) * self.recipe.mel_deviation)
    }

    /// Codes of the clips of some melodies, for a probe.
    fn labelled(&self, judged: &Judged, melodies: impl Iterator<Item = usize>) -> Result<Labelled> {
        let set = judged.set;
        let clips = melodies.flat_map(|melody| (0..set.programs.len()).map(move |p| (melody, p)));
        let clips = clips.map(|(melody, program)| set.clip(melody, program) as u32);
        let clips: Vec<u32> = clips.take(PROBE_CODES).collect();
        let programs = clips.iter().map(|clip| set.program_of(*clip as usize));
        Ok(Labelled {
            rows: self.content(judged, &clips)?.flatten_from(1)?.to_vec2()?,
            classes: programs.collect(),
        })
    }

    pub(super) fn judged<'a>(&'a self, step: u64) -> [Judged<'a>; 2] {
        let (material, mels) = (&self.material, &self.mels);
        let content = match &self.codes.content {
            Some(table) if !self.encodes(step) => Content::Table(table),
            _ => Content::Encoder(step),
        };
        let training = Judged {
            set: &material.training,
            mels: &mels.training,
            content,
        };
        let test = match content {
            // There are no codes of other clips yet.
            Content::Table(_) => Judged { ..training },
            Content::Encoder(_) => Judged {
                set: &material.validation,
                mels: &mels.validation,
                content,
            },
        };
        [training, test]
    }

    /// The figures of a validation after `step` steps.
    pub(super) fn judge(&self, step: u64) -> Result<Report> {
        let [training, test] = self.judged(step);
        let seed = self.recipe.seed;
        let pairs = Pairs::draw(test.set, test.set, VALIDATION_PAIRS, seed);
        let mel_l1 = self.reconstruction(&test, &pairs.sources)?;
        let converted = self.translate(&test, test.mels, &pairs)?;
        let melodies = training.set.melodies.len();
        let (fitted, tested) = match test.content {
            // Melodies apart, of the same table.
            Content::Table(_) => (
                self.labelled(&training, (0..melodies).step_by(2))?,
                self.labelled(&training, (1..melodies).step_by(2))?,
            ),
            Content::Encoder(_) => (
                self.labelled(&training, 0..melodies)?,
                self.labelled(&test, 0..test.set.melodies.len())?,
            ),
        };
        let classes = training.set.programs.len();
        let code_probe = probe::accuracy(&fitted, &tested, classes)?;
        let frames = self.recipe.lord.content_frames;
        let pooled_probe =
            probe::accuracy(&fitted.pooled(frames), &tested.pooled(frames), classes)?;
        let mut figures = json!({
            "mel_l1": mel_l1, "converted": converted.to_json(), "probe": code_probe, "pooled_probe": pooled_probe,
            "chance": 1.0 / classes as f64,
        });
        let mut line = format!(
            "mel L1 {mel_l1:.3}; converted {}; probe {code_probe:.3} pooled {pooled_probe:.3} chance {:.3}",
            converted.line(),
            1.0 / classes as f64
        );
        if let Content::Encoder(_) = test.content {
            let unseen = Judged {
                set: &self.material.unseen,
                mels: &self.mels.unseen,
                content: test.content,
            };
            let pairs = Pairs::draw(unseen.set, test.set, VALIDATION_PAIRS, seed);
            let converted = self.translate(&unseen, test.mels, &pairs)?;
            line += &format!("; from unseen {}", converted.line());
            figures["converted_from_unseen"] = converted.to_json();
        }
        Ok(Report {
            line,
            figures: json!({ "validation": figures }),
        })
    }

    /// Draws the preview after `step` steps.
    pub(super) fn draw(&self, step: u64, run: &Path) -> Result<()> {
        let path = preview::folder(run)?.join(format!("step-{:06}.png", step));
        let [_, test] = self.judged(step);
        let count = PREVIEW_INSTRUMENTS.min(test.set.programs.len());
        // From all over the list.
        let all: Vec<u32> = (0..count)
            .map(|n| (n * test.set.programs.len() / count) as u32)
            .collect();
        let melodies = test.set.melodies.len();
        let clips = all.iter().enumerate();
        let clips = clips.map(|(n, program)| test.set.clip(n % melodies, *program as usize) as u32);
        let clips: Vec<u32> = clips.collect();
        let content = self.content(&test, &clips)?;
        let name = |program: u32| test.set.programs[program as usize].name;
        let log_mel = |mels: &Tensor, place: usize| -> Result<Tensor> {
            let mel = mels.get(place)?.squeeze(1)?.to_device(&Device::Cpu)?;
            Ok(mel.affine(self.recipe.mel_deviation, self.recipe.mel_mean)?)
        };
        let mut rows = Vec::new();
        for (n, (program, clip)) in all.iter().zip(&clips).enumerate() {
            let content = content.narrow(0, n, 1)?;
            let translations = all.iter().map(|target| {
                let translated = self.generate(&content, &[*target])?;
                Ok((name(*target), log_mel(&translated, 0)?))
            });
            rows.push(Row {
                source: name(*program),
                log_mel: log_mel(test.mels, *clip as usize)?,
                translations: translations.collect::<Result<_>>()?,
            });
        }
        pictures::draw(&path, &rows, &self.recipe.mel)
    }
}
