//! A run resumes, learns, exports, and is the same with the operations of a GPU.

use super::*;
use crate::checkpoint;
use crate::lord::export::model_bytes;
use crate::notes::programs::PROGRAMS;
use crate::phrases::melody::Note;
use crate::recipe::Recipe;
use graft_material::testing::TestFolder;
use model_runtime::lord::LordModel;
use model_runtime::model_file::Card;
use vocoder::conv::as_on_a_gpu;

/// Its adversary begins in the second stage, which has 4 steps after 3.
const RECIPE: &str = r#"
    name = "tiny"
    seed = 1
    batch = 4
    mel_mean = -6.0
    mel_deviation = 2.0
    [lord]
    n_mels = 64
    frames = 64
    content_channels = 3
    content_frames = 8
    class_size = 4
    channels = 6
    kernel = 3
    ups = [2, 4]
    dense_blocks = 1
    [lord.content_encoder]
    bank = 2
    bank_channels = 2
    channels = 5
    kernel = 3
    strides = [4, 2]
    [lord.class_encoder]
    bank = 2
    bank_channels = 2
    channels = 4
    kernel = 3
    strides = [4]
    [mel]
    sample_rate_hz = 22050
    n_fft = 2048
    hop_length = 512
    n_mels = 64
    f_min_hz = 0.0
    f_max_hz = 11025.0
    [clips]
    seed = 1
    programs = [0, 40]
    held_out_programs = [73]
    melodies = 3
    validation_melodies = 2
    keys = [60, 72]
    held_out_keys = []
    chord_share = 0.0
    [codes]
    content = "table"
    noise = "fixed"
    decay = 1e-3
    [classifier]
    channels = 2
    steps = 2
    batch = 4
    learning_rate = 1e-2
    [loss]
    l1 = 1.0
    features = 1.0
    frobenius = 0.1
    [stage_1]
    steps = 3
    generator_rate = 1e-2
    code_rate = 1e-1
    rate_floor = 1e-4
    betas = [0.5, 0.999]
    [stage_2]
    steps = 4
    rate = 1e-2
    rate_floor = 1e-4
    betas = [0.9, 0.999]
    content = 1.0
    class = 1.0
    adversary = 0.1
    adversary_channels = 1
    adversary_start = 1
    adversary_rate = 1.0
    confusion = 0.5
    confusion_start = 1
    confusion_rate = 2.0
    noise = false
    [intervals]
    checkpoint_steps = 5
    validation_steps = 10
"#;

/// Two colours of a band that moves with the melody.
fn set(programs: &[usize], melodies: usize) -> ClipSet {
    let mut values = Vec::new();
    for melody in 0..melodies {
        for program in programs {
            for band in 0..64 {
                values.extend((0..64).map(|frame| {
                    let partial = (frame / 8 * (melody + 2) + 5) % 12 + 4;
                    let colour = 1.0 + *program as f32 / 40.0;
                    let level = -2.0 - colour * band as f32 / 10.0;
                    if band % partial < 2 { level } else { -9.0 }
                }));
            }
        }
    }
    let note = Note {
        start_s: 0.1,
        end_s: 0.9,
        key: 60,
        velocity: 90,
    };
    let shape = (melodies * programs.len(), 64, 1, 64);
    ClipSet {
        programs: programs.iter().map(|number| &PROGRAMS[*number]).collect(),
        melodies: vec![vec![note]; melodies],
        log_mels: Tensor::from_vec(values, shape, &Device::Cpu).unwrap(),
    }
}

fn trainee(recipe: &str, step: u64, weights: &Weights) -> (LordTrainee, CheckpointHeader) {
    let recipe = Recipe::parse(recipe).unwrap();
    let mut header = CheckpointHeader::new(recipe.clone(), None);
    header.step = step;
    let Recipe::Lord(recipe) = recipe else {
        panic!("expected a recipe for clips");
    };
    let material = LordMaterial {
        training: set(&[0, 40], 3),
        validation: set(&[0, 40], 2),
        unseen: set(&[73], 2),
    };
    let trainee = LordTrainee::new(*recipe, &header, weights, material, Device::Cpu);
    (trainee.unwrap(), header)
}

/// The losses of some steps.
fn train((trainee, header): &mut (LordTrainee, CheckpointHeader), steps: u64) -> Vec<f64> {
    (0..steps)
        .map(|_| {
            let batch = trainee.next_batch().unwrap();
            let report = trainee.step(header, batch).unwrap();
            header.step += 1;
            report.figures["train"]["loss"].as_f64().unwrap()
        })
        .collect()
}

/// The recipes of all ablations.
fn recipes() -> [String; 7] {
    let [content, noise, decay] = ["content = \"table\"", "noise = \"fixed\"", "decay = 1e-3"];
    [
        RECIPE.replace("noise = false", "noise = true"),
        confined(),
        RECIPE.replace("confusion = 0.5", "confusion = 0.0"),
        RECIPE.to_owned(),
        RECIPE.replace(content, "content = \"encoder\""),
        RECIPE.replace(noise, "noise = \"kl\""),
        RECIPE.replace(decay, "decay = 0.0"),
    ]
}

/// Of the 24 values of a content code. The 6 training clips span 5.
const RANK: usize = 3;

/// Codes are confined at the third step of the second stage.
fn confined() -> String {
    let [frames, rate] = ["content_frames = 8", "confusion_rate = 2.0"];
    RECIPE
        .replace(frames, &format!("{frames}\n    content_rank = {RANK}"))
        .replace(rate, &format!("{rate}\n    rank_start = 2"))
}

/// How much content codes of all training clips vary, and how much of that is outside of their first `RANK` directions.
fn variation((trainee, header): &(LordTrainee, CheckpointHeader)) -> [f64; 2] {
    let [training, _] = trainee.judged(header.step);
    let content = trainee.content(&training, &[0, 1, 2, 3, 4, 5]).unwrap();
    let content = content.flatten_from(1).unwrap();
    let principal = Principal::of(&content, RANK).unwrap();
    let (points, _) = principal.project(&content).unwrap();
    let centred = content.broadcast_sub(&principal.mean).unwrap();
    let left = (&centred - points.matmul(&principal.directions).unwrap()).unwrap();
    [centred, left].map(|rows| {
        let sum = rows.sqr().unwrap().sum_all().unwrap();
        f64::from(sum.to_scalar::<f32>().unwrap())
    })
}

#[test]
fn codes_keep_to_the_directions_in_which_they_varied_most() {
    for recipe in [
        confined(),
        confined().replace("content = \"table\"", "content = \"encoder\""),
    ] {
        let mut run = trainee(&recipe, 0, &Weights::Random);
        train(&mut run, 5);
        let [all, outside] = variation(&run);
        assert!(outside > 1e-4 * all, "{outside} of {all}");
        let bytes = |run: &(LordTrainee, CheckpointHeader)| {
            let state = run.0.state().unwrap();
            model_bytes(&run.0.recipe, run.1.step, &state, Card::default())
        };
        let error = bytes(&run).unwrap_err().to_string();
        assert!(error.contains("more than 5 steps, found 5"), "{error}");
        for _ in 0..2 {
            train(&mut run, 1);
            let [now, outside] = variation(&run);
            assert!(outside < 1e-6 * now, "{outside} of {now}");
            assert!(now > 0.3 * all, "{now} of {all}");
        }
        bytes(&run).unwrap();
    }
    let other = confined().replace("rank_start = 2", "rank_start = 1");
    let trained = |recipe: &str| trainee(recipe, 0, &Weights::Random).0.recipe.trained();
    assert_ne!(trained(&other), trained(&confined()));
}

#[test]
fn a_resumed_run_goes_on_as_if_it_had_not_stopped_in_either_stage() {
    let mut losses = Vec::new();
    for recipe in recipes() {
        let whole = train(&mut trainee(&recipe, 0, &Weights::Random), 7);
        for stop in [2, 3, 4, 6] {
            let mut first = trainee(&recipe, 0, &Weights::Random);
            let begun = train(&mut first, stop);
            // Through a file, as in a run.
            let folder = TestFolder::new("lord-resume");
            checkpoint::save(folder.path(), &first.1, &first.0.state().unwrap()).unwrap();
            let (header, state) = checkpoint::load(folder.path()).unwrap();
            assert_eq!(header.step, stop);
            let resumed = &mut trainee(&recipe, stop, &Weights::Checkpoint(state));
            assert_eq!([begun, train(resumed, 7 - stop)].concat(), whole, "{stop}");
        }
        losses.push(whole);
    }
    // Each ablation is one.
    for (n, own) in losses.iter().enumerate() {
        assert!(losses[..n].iter().all(|other| other != own), "{n}");
    }
}

#[test]
fn steps_with_the_operations_of_a_gpu_are_those_of_the_cpu() {
    let found = as_on_a_gpu(|| train(&mut trainee(RECIPE, 0, &Weights::Random), 6));
    let expected = train(&mut trainee(RECIPE, 0, &Weights::Random), 6);
    for (found, expected) in found.iter().zip(&expected) {
        assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
    }
}

#[test]
fn both_stages_learn_and_end() {
    let recipe = RECIPE
        .replace("steps = 3", "steps = 150")
        .replace("steps = 4", "steps = 150")
        .replace("decay = 1e-3", "decay = 1e-4");
    let mut run = trainee(&recipe, 0, &Weights::Random);
    let l1 = |run: &mut (LordTrainee, CheckpointHeader)| {
        let figures = run.0.validate(&run.1).unwrap().figures;
        figures["validation"]["mel_l1"].as_f64().unwrap()
    };
    let first = l1(&mut run);
    train(&mut run, 150);
    let second = l1(&mut run);
    assert!(second < 0.5 * first, "{first} {second}");
    assert!(run.0.end(&run.1).is_none());
    let losses = train(&mut run, 150);
    let sum = |losses: &[f64]| losses.iter().sum::<f64>();
    let (begun, done) = (sum(&losses[..10]), sum(&losses[140..]));
    assert!(done < 0.7 * begun, "{begun} {done}");
    assert!(run.0.end(&run.1).is_some());
    let third = run.0.validate(&run.1).unwrap().figures;
    assert!(third["validation"]["converted_from_unseen"]["mel_l1"].is_number());
}

#[test]
fn an_exported_model_translates_as_the_run_does() {
    let mut run = trainee(RECIPE, 0, &Weights::Random);
    train(&mut run, 3);
    let bytes = |run: &(LordTrainee, CheckpointHeader)| {
        let state = run.0.state().unwrap();
        model_bytes(&run.0.recipe, run.1.step, &state, Card::default())
    };
    let error = bytes(&run).unwrap_err().to_string();
    assert!(
        error.contains("expected more than 3 steps, found 3"),
        "{error}"
    );
    train(&mut run, 2);
    let model = LordModel::from_bytes(&bytes(&run).unwrap()).unwrap();
    assert_eq!(model.instruments(), ["Acoustic Grand Piano", "Violin"]);

    let trainee = &run.0;
    let [_, test] = trainee.judged(run.1.step);
    let content = trainee.content(&test, &[2]).unwrap();
    let mel = trainee
        .generate(&content, &[1])
        .unwrap()
        .squeeze(2)
        .unwrap();
    let expected = mel.affine(2.0, -6.0).unwrap();
    let log_mel = test
        .set
        .log_mels
        .narrow(0, 2, 1)
        .unwrap()
        .squeeze(2)
        .unwrap();
    let content = model.encode_content(&log_mel).unwrap();
    let found = model
        .generate(&content, &model.class_of(1).unwrap())
        .unwrap();
    let values = |mel: &Tensor| mel.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    for (found, expected) in values(&found).iter().zip(values(&expected)) {
        // 16-bit weights.
        assert!((found - expected).abs() < 0.05, "{found}, {expected}");
    }
}

#[test]
fn each_epoch_has_every_clip_once() {
    let recipe = RECIPE.replace("batch = 4", "batch = 3");
    let (mut trainee, _) = trainee(&recipe, 0, &Weights::Random);
    let mut epoch = || -> Vec<u32> {
        let batches = (0..2).flat_map(|_| trainee.next_batch().unwrap());
        batches.collect()
    };
    let (first, second) = (epoch(), epoch());
    assert_ne!(first, second);
    for mut epoch in [first, second] {
        epoch.sort_unstable();
        assert_eq!(epoch, [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn a_preview_shows_translations_in_either_stage() {
    let folder = TestFolder::new("lord-preview");
    for step in [0, 4] {
        let (trainee, header) = trainee(RECIPE, step, &state_after(step));
        trainee.preview(&header, folder.path()).unwrap();
        let name = format!("previews/step-{step:06}.png");
        assert!(folder.path().join(name).exists());
    }
}

fn state_after(step: u64) -> Weights {
    let mut run = trainee(RECIPE, 0, &Weights::Random);
    train(&mut run, step);
    Weights::Checkpoint(run.0.state().unwrap())
}
