//! The report that a user copies for the description of a fault.

use std::env;
use std::fmt::Write;

use egui::{Id, Rect, Ui};
use nice_plug::prelude::PluginApi;
use vocoder::simd::Isa;

use super::about::{COMMIT, VERSION};
use super::buttons::{Look, action};
use super::theme;
use crate::params::GraftParams;
use crate::readout::Readout;

/// How long the button says that the report was copied.
const COPIED_SECONDS: f64 = 2.0;

const HELP: &str = "Copies a report for the description of a fault: version, host, rate, block, latency, late windows and \
                    model. It names no files.";

/// Shows the button that copies the report.
pub fn button(ui: &Ui, rect: Rect, report: impl FnOnce() -> String) {
    let (id, context) = (Id::unique("report"), ui.ctx());
    let now_seconds = ui.input(|input| input.time);
    let copied_seconds: Option<f64> = context.data(|data| data.get_temp(id));
    let left_seconds = copied_seconds.map_or(0.0, |at| at + COPIED_SECONDS - now_seconds);
    let is_fresh = left_seconds > 0.0;
    let look = Look {
        rect,
        text: if is_fresh { "Copied" } else { "Copy report" },
        color: theme::REMIX,
        help: HELP,
    };
    if action(ui, id, true, &look) {
        context.copy_text(report());
        context.data_mut(|data| data.insert_temp(id, now_seconds));
        context.request_repaint();
    } else if is_fresh {
        context.request_repaint_after_secs(left_seconds as f32);
    }
}

/// The report: one fact in a line. Without the paths of files, which may name the user.
pub fn text(params: &GraftParams, readout: &Readout, api: PluginApi) -> String {
    let status = &readout.status;
    let (rate, block, latency) = match readout.activation() {
        Some(activation) => (
            format!("{} Hz", activation.sample_rate_hz),
            format!("up to {} samples", activation.max_block_samples),
            format!(
                "{:?}, {} samples ({:.1} ms)",
                activation.setup.mode,
                activation.latency_samples,
                1000.0 * activation.latency_seconds()
            ),
        ),
        None => ["inactive"; 3].map(str::to_owned).into(),
    };
    let store = &params.model.0;
    let model = match store.in_use(params.engine.value()) {
        Ok(model) => {
            let card = &model.header().card;
            format!("{} {}, SHA-256 {}", card.name, card.version, model.sha256())
        }
        Err(error) => error.to_string(),
    };
    let chosen = match store.chosen() {
        None => "built-in",
        Some(_) if store.is_lost() => "a file that was not loaded",
        Some(_) => "a file",
    };
    let facts = [
        ("Graft", format!("{VERSION}, commit {COMMIT}")),
        (
            "System",
            format!(
                "{} {}, {:?}",
                env::consts::OS,
                env::consts::ARCH,
                Isa::best()
            ),
        ),
        ("Host", format!("{}, {api}", host())),
        ("Sample rate", rate),
        ("Block", block),
        ("Latency", latency),
        ("Engine", params.engine.to_string()),
        ("Model", model),
        ("Chosen model", chosen.to_owned()),
        ("Late windows", status.late_windows().to_string()),
        ("Faults", status.faults().to_string()),
        (
            "Worker",
            format!("{:.0} % of real time", 100.0 * status.real_time_factor()),
        ),
    ];
    let mut report = String::new();
    for (name, fact) in facts {
        // Writing to a string cannot fail.
        let _ = writeln!(report, "{name}: {fact}");
    }
    report
}

/// The file name of the program that loaded the plugin.
fn host() -> String {
    let program = env::current_exe().ok();
    let name = program.as_ref().and_then(|path| path.file_name());
    name.map_or_else(
        || "unknown".to_owned(),
        |name| name.to_string_lossy().into(),
    )
}

#[cfg(test)]
mod tests {
    use egui::{Event, Modifiers, OutputCommand, PointerButton, Pos2, RawInput, pos2, vec2};
    use model_runtime::{LatencyMode, Model};

    use super::*;
    use crate::engines::Engine;
    use crate::setup::{Activation, LatencyTerms, Setup};

    #[test]
    fn a_report_has_what_a_fault_needs() {
        let (params, readout) = (GraftParams::default(), Readout::default());
        let inactive = text(&params, &readout, PluginApi::Clap);
        assert!(inactive.contains("Latency: inactive\n"), "{inactive}");
        readout.set_activation(Activation {
            setup: Setup {
                engine: Engine::Network,
                mode: LatencyMode::Live,
                model_version: 0,
            },
            sample_rate_hz: 48_000.0,
            max_block_samples: 512,
            latency_samples: 4800,
            latency_terms: LatencyTerms::default(),
            frames_hz: 43.0,
        });
        readout.status.report_fault("broken".to_owned());
        let report = text(&params, &readout, PluginApi::Vst3);
        let program = env::current_exe().unwrap();
        let sha256 = Model::built_in().unwrap().sha256().to_owned();
        for line in [
            &format!("Graft: {}, commit {COMMIT}", env!("CARGO_PKG_VERSION")),
            &format!("Host: {}, VST3", program.file_name().unwrap().display()),
            "Sample rate: 48000 Hz",
            "Block: up to 512 samples",
            "Latency: Live, 4800 samples (100.0 ms)",
            "Engine: Network",
            "Chosen model: built-in",
            "Late windows: 0",
            "Faults: 1",
        ] {
            assert!(
                report.lines().any(|found| found == line),
                "{line}: {report}"
            );
        }
        assert!(report.contains(&sha256), "{report}");
        let folder = program.parent().unwrap().display().to_string();
        assert!(!report.contains(&folder), "{report}");
    }

    /// A frame of a window with the button, in which these events happen.
    fn frame(context: &egui::Context, time: f64, events: Vec<Event>) -> egui::FullOutput {
        let input = RawInput {
            time: Some(time),
            screen_rect: Some(Rect::from_min_size(Pos2::ZERO, vec2(200.0, 50.0))),
            events,
            ..RawInput::default()
        };
        let rect = Rect::from_min_size(pos2(10.0, 10.0), vec2(88.0, 20.0));
        context.run_ui(input, |ui| button(ui, rect, || "the report".to_owned()))
    }

    #[test]
    fn a_click_copies_the_report() {
        let context = egui::Context::default();
        theme::install(&context);
        let press = |pressed| Event::PointerButton {
            pos: pos2(50.0, 20.0),
            button: PointerButton::Primary,
            pressed,
            modifiers: Modifiers::NONE,
        };
        let mut copied = Vec::new();
        for (time, events) in [
            (0.0, vec![Event::PointerMoved(pos2(50.0, 20.0))]),
            (0.1, vec![press(true)]),
            (0.2, vec![press(false)]),
            (0.3, vec![]),
        ] {
            copied.extend(frame(&context, time, events).platform_output.commands);
        }
        let expected = [OutputCommand::CopyText("the report".to_owned())];
        assert_eq!(copied, expected);
    }
}
