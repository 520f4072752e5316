//! `cargo xtask screenshots`: pictures of the plugin's window.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use graft_material::{audio_file, png, rate, whole_file, workspace};
use graft_tests::{
    Activation, Block, Button, Desktop, HostWindow, Plugin, Screenshot, Session, Song,
};

use crate::bundle;

const RATE_HZ: u32 = 48_000;
const BLOCK_SAMPLES: usize = 480;
/// Time between two actions of the user.
const ACT_SAMPLES: usize = RATE_HZ as usize / 4;
/// Tempo of the demo loops.
const TEMPO_BPM: f64 = 130.0;

/// Take pictures of the plugin's window
///
/// Opens the plugin in a headless host and plays the demo loops. Needs Xvfb and OpenGL (Debian: xvfb, libgl1-mesa-dri).
/// Writes to target/screenshots.
#[derive(Args)]
pub struct Screenshots {
    /// Output folder [default: target/screenshots]
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Take only pictures whose names contain this text
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

/// One picture.
struct Scene {
    name: &'static str,
    /// Scale of the window; 1 is its initial size.
    scale: f64,
    main: bool,
    sidechain: bool,
    seconds: f64,
    /// Parameters set before the first frame.
    parameters: &'static [(&'static str, f64)],
    /// Actions of the user once the sound has started.
    acts: &'static [Act],
}

/// An action of the user. Positions are in pixels at the initial size.
enum Act {
    Click(i16, i16),
    Type(&'static str),
    Return,
}

/// Positions of controls.
const MODEL_BUTTON: Act = Act::Click(760, 26);
const NAME: Act = Act::Click(40, 26);
const MODEL_PATH: Act = Act::Click(400, 496);

const SCENES: [Scene; 10] = [
    Scene {
        name: "first-open",
        scale: 1.0,
        main: false,
        sidechain: false,
        seconds: 3.5,
        parameters: &[],
        acts: &[],
    },
    Scene {
        name: "playing",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 9.5,
        parameters: &[],
        acts: &[],
    },
    Scene {
        name: "live",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 6.0,
        parameters: &[("Latency", 0.0)],
        acts: &[],
    },
    Scene {
        name: "split",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 7.0,
        parameters: &[("Engine", 1.0)],
        acts: &[],
    },
    Scene {
        name: "timbre",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 7.0,
        parameters: &[
            ("Engine", 3.0),
            ("Timbre", 0.8),
            ("Pitch", 0.1),
            ("Variation", 0.3),
        ],
        acts: &[],
    },
    Scene {
        name: "small",
        scale: 0.75,
        main: true,
        sidechain: true,
        seconds: 9.5,
        parameters: &[("Harmony", 0.25), ("Rhythm", 0.8), ("Freeze Harmony", 1.0)],
        acts: &[],
    },
    Scene {
        name: "large",
        scale: 2.0,
        main: true,
        sidechain: true,
        seconds: 9.5,
        parameters: &[
            ("Link", 1.0),
            ("Harmony", 0.6),
            ("Transpose", -3.0),
            ("Mix", 0.8),
        ],
        acts: &[],
    },
    Scene {
        name: "models",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 4.0,
        parameters: &[],
        acts: &[MODEL_BUTTON],
    },
    Scene {
        name: "about",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 4.0,
        parameters: &[],
        acts: &[NAME],
    },
    Scene {
        name: "model-error",
        scale: 1.0,
        main: true,
        sidechain: true,
        seconds: 4.0,
        parameters: &[],
        acts: &[
            MODEL_BUTTON,
            MODEL_PATH,
            Act::Type("/music/gone.safetensors"),
            Act::Return,
        ],
    },
];

impl Act {
    fn perform(&self, window: &HostWindow, scale: f64) -> Result<()> {
        const RETURN: u32 = 0xff0d;
        let pixel = |place: i16| (scale * f64::from(place)).round() as i16;
        match *self {
            Self::Click(x, y) => window.click(Button::Left, pixel(x), pixel(y)),
            Self::Type(text) => window.type_text(text),
            Self::Return => window.strike(RETURN),
        }
    }
}

impl Screenshots {
    /// Takes all pictures.
    pub fn run(self) -> Result<()> {
        // SAFETY: nothing has started a thread yet.
        let _desktop = unsafe { Desktop::start(2200, 1400)? };
        let bundles = bundle::release()?;
        let plugin = Plugin::load(&bundles.clap)?;
        let loops = Loops::read()?;
        let folder = self
            .folder
            .map_or_else(|| Ok(workspace::target()?.join("screenshots")), anyhow::Ok)?;
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        for scene in SCENES
            .iter()
            .filter(|scene| scene.name.contains(&self.only))
        {
            let picture = scene.play(&plugin, &loops)?;
            let path = folder.join(format!("editor-{}.png", scene.name));
            let file = png::encode(picture.width, picture.height, &picture.rgb);
            whole_file::write(&path, &file)?;
            println!("{}", workspace::display(&path));
        }
        Ok(())
    }
}

/// Both demo loops in stereo.
struct Loops {
    main: [Vec<f32>; 2],
    sidechain: [Vec<f32>; 2],
}

impl Loops {
    fn read() -> Result<Self> {
        let read = |name: &str| -> Result<[Vec<f32>; 2]> {
            let clip = audio_file::read(&workspace::root().join("assets/demo").join(name))?.clip;
            let channel = |index: usize| {
                let channel = &clip.channels[index.min(clip.channels.len() - 1)];
                rate::convert(channel, clip.sample_rate_hz, RATE_HZ)
            };
            Ok([channel(0)?, channel(1)?])
        };
        Ok(Self {
            main: read("harmony.ogg")?,
            sidechain: read("rhythm.ogg")?,
        })
    }
}

impl Scene {
    fn play(&self, plugin: &Plugin, loops: &Loops) -> Result<Screenshot> {
        let mut session = Session::new(plugin)?;
        for &(name, value) in self.parameters {
            session.set_parameter(name, value)?;
        }
        session.activate(&Activation {
            sample_rate_hz: RATE_HZ,
            max_block_samples: BLOCK_SAMPLES,
            offline: false,
        })?;
        let mut window = HostWindow::open(960, 600)?;
        session.open_editor(&mut window)?;
        let (width, height) = window.size();
        let pixels = |side: u16| (self.scale * f64::from(side)).round() as u32;
        session.resize_editor(&mut window, (pixels(width), pixels(height)))?;

        let samples = (self.seconds * f64::from(RATE_HZ)) as usize;
        let song = Song::steady(TEMPO_BPM, samples);
        let silence = vec![0.0; BLOCK_SAMPLES];
        let began = Instant::now();
        for start in (0..samples).step_by(BLOCK_SAMPLES) {
            let due = Duration::from_secs_f64(start as f64 / f64::from(RATE_HZ));
            thread::sleep(due.saturating_sub(began.elapsed()));
            let cut = |audio: &[Vec<f32>; 2], is_on: bool| {
                audio.each_ref().map(|channel| match is_on {
                    true => {
                        let looped = |sample: usize| channel[sample % channel.len()];
                        (start..start + BLOCK_SAMPLES).map(looped).collect()
                    }
                    false => silence.clone(),
                })
            };
            let main = cut(&loops.main, self.main);
            let sidechain = cut(&loops.sidechain, self.sidechain);
            let block = Block {
                main: [&main[0], &main[1]],
                sidechain: [&sidechain[0], &sidechain[1]],
                events: &[],
                transport: Some(song.at(start, f64::from(RATE_HZ))),
            };
            session.process(&block, |process| process())?;
            session.attend_editor(&mut window)?;
            let act = start
                .checked_sub(RATE_HZ as usize)
                .map(|passed| passed / ACT_SAMPLES);
            if let Some(act) = act.and_then(|act| self.acts.get(act))
                && start % ACT_SAMPLES == 0
            {
                act.perform(&window, self.scale)?;
            }
        }
        ensure!(
            !session.editor_closed_itself(),
            "the editor closed by itself"
        );
        let picture = window.screenshot()?;
        session.close_editor()?;
        Ok(picture)
    }
}
