//! The editor, driven by mouse and keyboard on a screen without a monitor (Xvfb), while the plugin plays. It needs Xvfb and OpenGL
//! (Debian: xvfb, libgl1-mesa-dri), and some quiet on the machine, so that it is left out unless one asks for it:
//! `cargo xtask test --editor`, or `GRAFT_EDITOR=1`. `GRAFT_OPENINGS=500` opens and closes the window more often.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    linux::main();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::env;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::thread;
    use std::time::{Duration, Instant};

    use anyhow::{Result, ensure};
    use graft_tests::{
        Activation, Block, Button, Desktop, HostWindow, ParameterEvent, Plugin, Session, Song,
        built_library,
    };

    const RATE_HZ: u32 = 48_000;
    const BLOCK_SAMPLES: usize = 480;

    const RETURN: u32 = 0xff0d;
    const TAB: u32 = 0xff09;
    const UP: u32 = 0xff52;
    const SHIFT: u32 = 0xffe1;

    /// Where things are at the first size, in pixels.
    const PAD: ([i16; 2], [i16; 2]) = ([38, 302], [312, 108]);
    const MIX: (i16, i16) = (844, 512);
    const UNDO: (i16, i16) = (482, 26);
    const PRESETS: (i16, i16) = (204, 26);
    const MODEL: (i16, i16) = (760, 26);
    const FIND: (i16, i16) = (180, 470);
    const SECOND_PRESET: (i16, i16) = (180, 83);

    type Check = (&'static str, fn(&Plugin) -> Result<()>);

    const CHECKS: [Check; 12] = [
        ("a drag on the pad is one gesture for each knob", drag),
        (
            "with the engine Timbre, the pad moves other knobs, and a preset of another engine chooses that",
            timbre,
        ),
        (
            "what is recorded of a drag sounds the same when it is played back",
            recording,
        ),
        ("shift makes a drag fine", fine_drag),
        ("values can be typed", typing),
        ("the keyboard reaches the knobs", keys),
        ("a preset and its undo", preset_and_undo),
        ("sizes are kept, also those that the host gets wrong", sizes),
        (
            "two windows, and a session that ends with its window open",
            two_windows,
        ),
        ("a model that is dropped on the window", dropped_model),
        ("a model that was moved is found", moved_model),
        ("opening and closing while it plays", openings),
    ];

    pub fn main() {
        if env::var_os("GRAFT_EDITOR").is_none() {
            // SAFETY: nothing has started a thread yet.
            unsafe { env::remove_var("DISPLAY") };
            without_a_display(&load()).unwrap_or_else(|error| panic!("{error:#}"));
            println!("an editor without a display ... ok");
            let skipped = CHECKS.len();
            println!("SKIPPED: {skipped} tests of the editor need a screen:");
            println!("SKIPPED: `cargo xtask test --editor` or GRAFT_EDITOR=1 runs them");
            return;
        }
        let wanted: Vec<String> = env::args()
            .skip(1)
            .filter(|argument| !argument.starts_with('-'))
            .collect();
        let is_wanted =
            |name: &str| wanted.is_empty() || wanted.iter().any(|text| name.contains(text));
        // What threads that are gone left of their heaps would count as a leak.
        // SAFETY: the call only changes a setting of the allocator.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
        // SAFETY: nothing has started a thread yet.
        unsafe { env::set_var("XDG_DATA_HOME", data_folder()) };
        // SAFETY: nothing has started a thread yet.
        let _desktop = unsafe { Desktop::start(2100, 1300) }.unwrap();
        let plugin = load();
        for (name, check) in CHECKS.iter().filter(|check| is_wanted(check.0)) {
            println!("{name} ...");
            check(&plugin).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
    }

    fn load() -> Plugin {
        let library = built_library();
        library.and_then(|path| Plugin::load(&path)).unwrap()
    }

    /// Where there is no display, the editor does not open, and the plugin plays on.
    fn without_a_display(plugin: &Plugin) -> Result<()> {
        let mut session = Session::new(plugin)?;
        ensure!(session.create_editor().is_err(), "the editor opened");
        let tried = render(session, RATE_HZ as usize, &[])?;
        ensure!(tried.iter().any(|x| *x != 0.0), "the plugin is silent");
        let untried = render(Session::new(plugin)?, RATE_HZ as usize, &[])?;
        ensure!(tried == untried, "the sound is another");
        Ok(())
    }

    /// A block, and what moves in it: the sample, the parameter and its value.
    type Move = (usize, (usize, String, f64));

    /// A plugin that plays, with its window open.
    struct Player {
        session: Session,
        window: HostWindow,
        samples: usize,
        began: Instant,
        /// Parameters that the host moves.
        moves: Vec<Move>,
        /// What the plugin did to its parameters by itself, and in which block.
        told: Vec<(usize, ParameterEvent)>,
        /// The left channel of what it played.
        heard: Vec<f32>,
    }

    /// A block of noise on main and of noise in pulses on the sidechain, from sample `from` on.
    fn inputs(from: usize) -> [Vec<f32>; 2] {
        let sample = |n: usize| {
            let noise = (n as u32).wrapping_mul(2_654_435_761) >> 8;
            noise as f32 / 16_777_216.0 - 0.5
        };
        let pulse = |n: usize| if n % 24_000 < 2000 { sample(n) } else { 0.0 };
        let block = || from..from + BLOCK_SAMPLES;
        [block().map(sample).collect(), block().map(pulse).collect()]
    }

    fn activation(offline: bool) -> Activation {
        Activation {
            sample_rate_hz: RATE_HZ,
            max_block_samples: BLOCK_SAMPLES,
            offline,
        }
    }

    /// The left channel of what a session without a window plays of the same inputs, with parameters moved at the start of blocks.
    fn render(mut session: Session, samples: usize, moves: &[Move]) -> Result<Vec<f32>> {
        session.activate(&activation(true))?;
        let song = Song::steady(120.0, usize::MAX);
        let mut rendered = Vec::new();
        for block in 0..samples / BLOCK_SAMPLES {
            let from = block * BLOCK_SAMPLES;
            let moves = moves.iter().filter(|(moved_in, ..)| *moved_in == block);
            let events: Vec<_> = moves.map(|(_, event)| event.clone()).collect();
            let [main, sidechain] = inputs(from);
            let [left, _] = session.process(
                &Block {
                    main: [&main, &main],
                    sidechain: [&sidechain, &sidechain],
                    events: &events,
                    transport: Some(song.at(from, f64::from(RATE_HZ))),
                },
                |process| process(),
            )?;
            rendered.extend(left);
        }
        Ok(rendered)
    }

    impl Player {
        fn new(plugin: &Plugin) -> Result<Self> {
            Self::start(plugin, None, false)
        }

        /// A host that says that it renders gets whole sound, however busy the machine is.
        fn start(plugin: &Plugin, state: Option<&[u8]>, offline: bool) -> Result<Self> {
            let mut session = Session::new(plugin)?;
            if let Some(state) = state {
                session.load_state(state)?;
            }
            session.activate(&activation(offline))?;
            let mut window = HostWindow::open(960, 600)?;
            session.open_editor(&mut window)?;
            let mut player = Self {
                session,
                window,
                samples: 0,
                began: Instant::now(),
                moves: Vec::new(),
                told: Vec::new(),
                heard: Vec::new(),
            };
            player.play(0.4)?;
            Ok(player)
        }

        /// Plays in real time.
        fn play(&mut self, seconds: f64) -> Result<()> {
            let end = self.samples + (seconds * f64::from(RATE_HZ)) as usize;
            let song = Song::steady(120.0, usize::MAX);
            while self.samples < end {
                let due = Duration::from_secs_f64(self.samples as f64 / f64::from(RATE_HZ));
                thread::sleep(due.saturating_sub(self.began.elapsed()));
                let [main, sidechain] = inputs(self.samples);
                let block = self.samples / BLOCK_SAMPLES;
                let moves = self.moves.iter().filter(|(moved_in, _)| *moved_in == block);
                let events: Vec<_> = moves.map(|(_, event)| event.clone()).collect();
                let [left, _] = self.session.process(
                    &Block {
                        main: [&main, &main],
                        sidechain: [&sidechain, &sidechain],
                        events: &events,
                        transport: Some(song.at(self.samples, f64::from(RATE_HZ))),
                    },
                    |process| process(),
                )?;
                self.heard.extend(left);
                let told = self.session.take_events().into_iter();
                self.told.extend(told.map(|event| (block, event)));
                self.session.attend_editor(&mut self.window)?;
                self.samples += BLOCK_SAMPLES;
            }
            ensure!(
                !self.session.editor_closed_itself(),
                "the editor closed by itself"
            );
            Ok(())
        }

        /// Presses at one place of the pad, goes to another in steps, and releases.
        fn drag_pad(&mut self, from: [f32; 2], to: [f32; 2]) -> Result<()> {
            let steps = 8;
            let pixel = |[x, y]: [f32; 2]| {
                let at = |[low, high]: [i16; 2], share: f32| {
                    (f32::from(low) + share * f32::from(high - low)).round() as i16
                };
                (at(PAD.0, x), at(PAD.1, y))
            };
            let (x, y) = pixel(from);
            self.window.move_to(x, y)?;
            self.play(0.1)?;
            self.window.press(Button::Left)?;
            for step in 1..=steps {
                let share = step as f32 / steps as f32;
                let (x, y) = pixel([0, 1].map(|i| from[i] + share * (to[i] - from[i])));
                self.window.move_to(x, y)?;
                self.play(0.05)?;
            }
            self.window.release(Button::Left)?;
            self.play(0.2)
        }

        fn click(&mut self, button: Button, (x, y): (i16, i16)) -> Result<()> {
            self.window.click(button, x, y)?;
            self.play(0.5)
        }

        /// What the plugin did to its parameters by itself since the last call.
        fn take_events(&mut self) -> Vec<ParameterEvent> {
            let told = self.told.drain(..);
            told.map(|(_, event)| event).collect()
        }

        /// What happened to a parameter since the last call: one gesture, whose last value is given.
        fn one_gesture(&mut self, name: &str) -> Result<f64> {
            self.gestures(&[name]).map(|values| values[0])
        }

        /// The same for several.
        fn gestures(&mut self, names: &[&str]) -> Result<Vec<f64>> {
            let events = self.take_events();
            let found = names.iter().map(|&wanted| {
                let mut values = Vec::new();
                let mut order = String::new();
                for event in &events {
                    match event {
                        ParameterEvent::Begin(name) if name == wanted => order.push('b'),
                        ParameterEvent::End(name) if name == wanted => order.push('e'),
                        ParameterEvent::Value(name, value) if name == wanted => {
                            order.push('v');
                            values.push(*value);
                        }
                        _ => {}
                    }
                }
                let middle = order
                    .strip_prefix('b')
                    .and_then(|rest| rest.strip_suffix('e'));
                ensure!(
                    middle.is_some_and(|m| !m.is_empty() && m.chars().all(|c| c == 'v')),
                    "expected begin, values, end of {wanted}, found \"{order}\" in {events:?}"
                );
                Ok(values[values.len() - 1])
            });
            found.collect()
        }
    }

    fn near(found: f64, expected: f64, tolerance: f64) -> Result<()> {
        ensure!(
            (found - expected).abs() <= tolerance,
            "expected about {expected}, found {found}"
        );
        Ok(())
    }

    fn drag(plugin: &Plugin) -> Result<()> {
        let mut player = Player::new(plugin)?;
        player.drag_pad([0.0, 1.0], [0.5, 0.25])?;
        let values = player.gestures(&["Harmony", "Rhythm"])?;
        near(values[0], 0.5, 0.01)?;
        near(values[1], 0.25, 0.01)
    }

    fn timbre(plugin: &Plugin) -> Result<()> {
        let mut session = Session::new(plugin)?;
        session.set_parameter("Engine", 3.0)?;
        let mut player = Player::start(plugin, Some(&session.save_state()?), false)?;
        player.drag_pad([1.0, 0.0], [0.5, 0.75])?;
        let values = player.gestures(&["Timbre", "Pitch"])?;
        near(values[0], 0.5, 0.01)?;
        near(values[1], 0.75, 0.01)?;
        player.click(Button::Left, PRESETS)?;
        player.click(Button::Left, SECOND_PRESET)?;
        let values = player.gestures(&["Harmony", "Rhythm", "Engine"])?;
        ensure!(values == [1.0, 0.0, 0.0], "{values:?}");
        Ok(())
    }

    fn recording(plugin: &Plugin) -> Result<()> {
        let mut player = Player::start(plugin, None, true)?;
        player.drag_pad([0.0, 1.0], [0.75, 0.25])?;
        player.play(1.0)?;
        // nice-plug tells the host of a value at the end of the block before the first one that has it.
        let moves = player.told.iter().filter_map(|(block, event)| match event {
            ParameterEvent::Value(name, value) => Some((block + 1, (0, name.clone(), *value))),
            _ => None,
        });
        let moves: Vec<_> = moves.collect();
        let rendered = render(Session::new(plugin)?, player.heard.len(), &moves)?;
        let differs = player.heard.iter().zip(&rendered).position(|(x, y)| x != y);
        ensure!(
            differs.is_none(),
            "it differs from sample {differs:?} of {} on",
            player.heard.len()
        );
        Ok(())
    }

    fn fine_drag(plugin: &Plugin) -> Result<()> {
        let mut player = Player::new(plugin)?;
        player.window.hold(SHIFT, true)?;
        player.drag_pad([0.0, 1.0], [0.5, 0.0])?;
        player.window.hold(SHIFT, false)?;
        let values = player.gestures(&["Harmony", "Rhythm"])?;
        near(values[0], 0.05, 0.005)?;
        near(values[1], 0.9, 0.005)
    }

    fn typing(plugin: &Plugin) -> Result<()> {
        let mut player = Player::new(plugin)?;
        player.click(Button::Right, MIX)?;
        player.window.type_text("0.25")?;
        player.window.strike(RETURN)?;
        player.play(0.5)?;
        near(player.one_gesture("Mix")?, 0.25, 1e-6)?;
        // What is no value stays in the box; Escape would close it.
        player.click(Button::Right, MIX)?;
        player.window.type_text("x")?;
        player.window.strike(RETURN)?;
        player.play(0.5)?;
        ensure!(player.take_events().is_empty(), "x was taken as a value");
        Ok(())
    }

    fn keys(plugin: &Plugin) -> Result<()> {
        let mut player = Player::new(plugin)?;
        player.click(Button::Left, (330, 372))?;
        // Tab until an arrow moves it. An arrow right behind a Tab would still be one that moves the focus.
        for _ in 0..20 {
            player.window.strike(TAB)?;
            player.play(0.3)?;
            player.window.strike(UP)?;
            player.play(0.3)?;
            let events = player.take_events();
            if events.contains(&ParameterEvent::Begin("Transpose".to_owned())) {
                return Ok(());
            }
        }
        anyhow::bail!("Tab never reached Transpose")
    }

    fn preset_and_undo(plugin: &Plugin) -> Result<()> {
        let mut player = Player::new(plugin)?;
        player.click(Button::Left, PRESETS)?;
        player.click(Button::Left, SECOND_PRESET)?;
        let values = player.gestures(&["Harmony", "Rhythm"])?;
        near(values[0], 1.0, 0.0)?;
        near(values[1], 0.0, 0.0)?;
        player.click(Button::Left, UNDO)?;
        let values = player.gestures(&["Harmony", "Rhythm"])?;
        near(values[0], 0.0, 0.0)?;
        near(values[1], 1.0, 0.0)
    }

    fn sizes(plugin: &Plugin) -> Result<()> {
        let mut player = Player::new(plugin)?;
        let fitting = player.session.fitting_size((1920, 700))?;
        ensure!(fitting == (1920, 1200), "the editor would take {fitting:?}");
        // The face stays whole, whatever shape the host gives the window.
        for size in [fitting, (1500, 300), (100, 900), (1, 1), (1440, 900)] {
            player.session.resize_editor(&mut player.window, size)?;
            player.play(0.3)?;
        }
        let state = player.session.save_state()?;
        drop(player);
        let player = Player::start(plugin, Some(&state), false)?;
        ensure!(
            player.window.size() == (1440, 900),
            "the session came back with {:?}",
            player.window.size()
        );
        Ok(())
    }

    fn two_windows(plugin: &Plugin) -> Result<()> {
        let mut one = Player::new(plugin)?;
        let mut two = Player::new(plugin)?;
        for _ in 0..5 {
            one.play(0.1)?;
            two.play(0.1)?;
        }
        two.session.close_editor()?;
        one.play(0.2)?;
        drop(one.session);
        Ok(())
    }

    fn dropped_model(plugin: &Plugin) -> Result<()> {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/graft.safetensors");
        let path = env::temp_dir().join(format!("graft dröp {}.safetensors", std::process::id()));
        fs::copy(built_in, &path)?;
        let mut player = Player::new(plugin)?;
        player.window.drop_file(&path)?;
        player.play(1.0)?;
        let state = player.session.save_state()?;
        fs::remove_file(&path)?;
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        ensure!(
            String::from_utf8_lossy(&state).contains(name),
            "the session does not know the model that was dropped"
        );
        Ok(())
    }

    fn moved_model(plugin: &Plugin) -> Result<()> {
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/graft.safetensors");
        let path = env::temp_dir().join(format!("graft gone {}.safetensors", std::process::id()));
        fs::copy(&built_in, &path)?;
        let mut player = Player::new(plugin)?;
        player.window.drop_file(&path)?;
        player.play(1.0)?;
        let state = player.session.save_state()?;
        drop(player);
        fs::remove_file(&path)?;
        let models = data_folder().join("graft/models");
        fs::create_dir_all(&models)?;
        let moved = models.join("moved.safetensors");
        fs::copy(&built_in, &moved)?;
        let mut player = Player::start(plugin, Some(&state), false)?;
        player.click(Button::Left, MODEL)?;
        save_screenshot(&player.window)?;
        player.click(Button::Left, FIND)?;
        player.play(1.0)?;
        let state = player.session.save_state()?;
        fs::remove_file(&moved)?;
        ensure!(
            String::from_utf8_lossy(&state).contains("moved.safetensors"),
            "the model was not found"
        );
        Ok(())
    }

    /// Where the tests keep a user's models.
    fn data_folder() -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("editor")
    }

    fn openings(plugin: &Plugin) -> Result<()> {
        let openings = env::var("GRAFT_OPENINGS").map_or(12, |text| text.parse().unwrap_or(12));
        let mut player = Player::new(plugin)?;
        player.play(3.0)?;
        player.session.close_editor()?;
        let mut after_some = 0;
        for opening in 0..openings {
            player.session.open_editor(&mut player.window)?;
            let value = f64::from(opening % 10) / 10.0;
            let block = player.samples / BLOCK_SAMPLES;
            let rhythm = (100, "Rhythm".to_owned(), 1.0 - value);
            player.moves.push((block, (0, "Harmony".to_owned(), value)));
            player.moves.push((block, rhythm));
            player.play(0.15)?;
            player.session.close_editor()?;
            player.play(0.03)?;
            if opening == openings / 4 {
                after_some = resident_kib()?;
            }
        }
        let at_end = resident_kib()?;
        println!(
            "resident memory: {after_some} KiB after a quarter, {at_end} KiB after {openings} openings"
        );
        // baseview 0.4.2 leaves a keyboard's layout behind each time, some 75 KiB.
        let most_kib = 16 * 1024 + 100 * openings as u64;
        ensure!(
            at_end < after_some + most_kib,
            "memory grew from {after_some} to {at_end} KiB"
        );
        let rendered = render(Session::new(plugin)?, player.heard.len(), &player.moves)?;
        let pairs = player.heard.iter().zip(&rendered);
        let late = pairs.filter(|(x, y)| x != y).count();
        println!("{late} of {} samples unlike a render", rendered.len());
        ensure!(late == 0, "windows of the remix came late");
        Ok(())
    }

    /// Writes what the window shows to `GRAFT_SCREENSHOT`, if that is set, as a PPM picture.
    fn save_screenshot(window: &HostWindow) -> Result<()> {
        if let Ok(path) = env::var("GRAFT_SCREENSHOT") {
            let shot = window.screenshot()?;
            let header = format!("P6 {} {} 255\n", shot.width, shot.height);
            fs::write(path, [header.as_bytes(), &shot.rgb].concat())?;
        }
        Ok(())
    }

    fn resident_kib() -> Result<u64> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
        kib.ok_or_else(|| anyhow::anyhow!("no resident memory in /proc/self/status"))
    }
}
