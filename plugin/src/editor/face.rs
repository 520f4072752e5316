//! Where everything is on the face.

use egui::{Align2, Color32, Pos2, Rect, Ui, Vec2, pos2, vec2};
use model_runtime::LatencyMode;

use super::buttons::{self, choice, switch};
use super::knob::{self, knob};
use super::meter::{Hold, meter};
use super::pad::pad;
use super::panel::Panel;
use super::theme;
use crate::control::ParamId;
use crate::meters::{Level, Meters, Pulse};

const PAD: Rect = rect(12.0, 52.0, 316.0, 316.0);
/// Where the pictures are.
pub const PICTURES: Rect = rect(336.0, 52.0, 612.0, 316.0);
const REMIX: Rect = rect(12.0, 376.0, 316.0, 192.0);
const FREEZE: Rect = rect(336.0, 376.0, 136.0, 192.0);
const PROCESSING: Rect = rect(480.0, 376.0, 176.0, 192.0);
const LEVELS: Rect = rect(664.0, 376.0, 284.0, 192.0);
/// Where the button for models is.
pub const MODEL: Rect = rect(664.0, 13.0, 200.0, 26.0);
/// Where the status line is.
pub const STATUS: Rect = rect(12.0, 572.0, 920.0, 24.0);

/// Middles of the knobs, from the left of their group.
const HARMONY_X: f32 = 48.0;
const RHYTHM_X: f32 = 134.0;
const LINK_WIDTH: f32 = 48.0;

const KNOB_RADIUS: f32 = 30.0;
const SMALL_KNOB_RADIUS: f32 = 21.0;

const fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
    Rect {
        min: pos2(x, y),
        max: pos2(x + width, y + height),
    }
}

/// Peaks fall by themselves while there is audio; after such a pause they are old.
const OLD_PEAKS_SECONDS: f64 = 0.25;

/// The highest peaks of all meters.
#[derive(Default)]
pub struct Holds {
    pulse: Pulse,
    main: Hold,
    sidechain: Hold,
    output: Hold,
}

/// Shows all parameters. `origin` is the face's upper left corner.
pub fn controls(ui: &Ui, origin: Pos2, panel: &mut Panel, meters: &Meters, holds: &mut Holds) {
    let at = |rect: Rect| rect.translate(origin.to_vec2());
    pad(ui, panel, at(PAD));
    remix(ui, panel, at(REMIX));
    freeze(ui, panel, at(FREEZE));
    processing(ui, panel, at(PROCESSING));
    levels(ui, panel, at(LEVELS), meters, holds);
}

/// The ground of a group, with its name.
pub fn group(ui: &Ui, rect: Rect, name: &str) {
    ui.painter().rect_filled(rect, 6.0, theme::PANEL);
    ui.painter().text(
        rect.left_top() + vec2(12.0, 9.0),
        Align2::LEFT_TOP,
        name,
        theme::bold(theme::NORMAL),
        theme::TEXT,
    );
}

fn remix(ui: &Ui, panel: &mut Panel, rect: Rect) {
    group(ui, rect, "Remix");
    let middle = rect.top() + 86.0;
    let knobs = [
        (
            ParamId::Harmony,
            HARMONY_X,
            0.0,
            "where chords and notes come from; 0 is the main input, 1 the sidechain.",
        ),
        (
            ParamId::Rhythm,
            RHYTHM_X,
            0.0,
            "where the beats come from; 0 is the main input, 1 the sidechain.",
        ),
        (
            ParamId::Transpose,
            218.0,
            0.5,
            "moves the harmony by semitones.",
        ),
    ];
    for (id, x, origin, help) in knobs {
        let linked = id == ParamId::Rhythm && panel.is_on(ParamId::Link);
        let value = panel.value(id);
        let color = match id {
            ParamId::Transpose => theme::REMIX,
            _ if linked => theme::DIM,
            _ => theme::blend(theme::MAIN, theme::SIDECHAIN, value),
        };
        let look = knob::Look {
            center: pos2(rect.left() + x, middle),
            radius: KNOB_RADIUS,
            color,
            origin,
            held_at: linked.then(|| panel.value(ParamId::Harmony)),
            help,
        };
        knob(ui, panel, id, &look);
    }
    let model = panel.params.model.0.in_use();
    let has_voice = model.is_ok_and(|model| model.header().generator.is_some());
    let is_live = !LatencyMode::from(panel.params.latency.value()).has_generated_voice();
    let small_knobs = [
        (
            ParamId::Voice,
            66.0,
            "from the sound of the inputs, 0, to the voice of the model, 1.",
        ),
        (
            ParamId::Air,
            146.0,
            "how much of the inputs is heard above 11 kHz, where the voice of the model ends.",
        ),
    ];
    for (id, y, help) in small_knobs {
        let look = knob::Look {
            center: pos2(rect.left() + 284.0, rect.top() + y),
            radius: SMALL_KNOB_RADIUS,
            color: match has_voice && !is_live {
                true => theme::REMIX,
                false => theme::DIM,
            },
            origin: 0.0,
            held_at: None,
            help: match (has_voice, is_live) {
                (true, false) => help,
                (true, true) => "not heard at the latency Live.",
                (false, _) => "for models with a voice of their own, which this one has not.",
            },
        };
        knob(ui, panel, id, &look);
    }
    switch(
        ui,
        panel,
        ParamId::Link,
        &buttons::Look {
            rect: Rect::from_center_size(
                pos2(
                    rect.left() + 0.5 * (HARMONY_X + RHYTHM_X),
                    rect.top() + 158.0,
                ),
                vec2(LINK_WIDTH, 24.0),
            ),
            text: "Link",
            color: theme::REMIX,
            help: "Link: Rhythm follows Harmony, so that one knob goes from one track to the other.",
        },
    );
    // From the switch to the two knobs that it links.
    let painter = ui.painter();
    let y = rect.top() + 158.0;
    let middle_x = 0.5 * (HARMONY_X + RHYTHM_X);
    for (knob_x, switch_x) in [
        (HARMONY_X, middle_x - LINK_WIDTH / 2.0),
        (RHYTHM_X, middle_x + LINK_WIDTH / 2.0),
    ] {
        let corner = pos2(rect.left() + knob_x, y);
        painter.line_segment([corner - vec2(0.0, 14.0), corner], (1.0, theme::LINE));
        painter.line_segment(
            [corner, pos2(rect.left() + switch_x, y)],
            (1.0, theme::LINE),
        );
    }
}

fn freeze(ui: &Ui, panel: &mut Panel, rect: Rect) {
    group(ui, rect, "Freeze");
    let line = |number: f32| {
        Rect::from_min_size(
            rect.left_top() + vec2(12.0, 36.0 + 34.0 * number),
            vec2(rect.width() - 24.0, 26.0),
        )
    };
    let switches = [
        (
            ParamId::FreezeHarmony,
            "Harmony",
            "Freeze Harmony: the last beats of the harmony play over and over.",
        ),
        (
            ParamId::FreezeRhythm,
            "Rhythm",
            "Freeze Rhythm: the last beats of the rhythm play over and over.",
        ),
    ];
    for (number, (id, text, help)) in switches.into_iter().enumerate() {
        let look = buttons::Look {
            rect: line(number as f32),
            text,
            color: theme::REMIX,
            help,
        };
        switch(ui, panel, id, &look);
    }
    caption(ui, line(2.2).left_top(), "Length in beats");
    let look = buttons::Look {
        rect: line(2.75),
        text: "",
        color: theme::REMIX,
        help: "Freeze Length: how many beats are frozen.",
    };
    choice(
        ui,
        panel,
        ParamId::FreezeLength,
        &["1", "2", "4", "8"],
        &look,
    );
}

fn processing(ui: &Ui, panel: &mut Panel, rect: Rect) {
    group(ui, rect, "Processing");
    let line = |y: f32| {
        Rect::from_min_size(
            rect.left_top() + vec2(12.0, y),
            vec2(rect.width() - 24.0, 26.0),
        )
    };
    caption(ui, line(32.0).left_top(), "Window in beats");
    let look = buttons::Look {
        rect: line(47.0),
        text: "",
        color: theme::REMIX,
        help: "Window: on which beats the work is bundled. The latency stays the same.",
    };
    let words = ["¼", "½", "1", "2", "Free"];
    choice(ui, panel, ParamId::Window, &words, &look);
    caption(ui, line(84.0).left_top(), "Latency");
    let look = buttons::Look {
        rect: line(99.0),
        text: "",
        color: theme::REMIX,
        help: "Latency: Live is soonest, Full sounds best. Takes effect when the host restarts the plugin.",
    };
    choice(
        ui,
        panel,
        ParamId::Latency,
        &["Live", "Default", "Full"],
        &look,
    );
    caption(ui, line(136.0).left_top(), "Engine");
    let look = buttons::Look {
        rect: line(151.0),
        text: "",
        color: theme::REMIX,
        help: "Engine: the network, or one of two old ways to remix that cost next to nothing. Takes effect when the host \
               restarts the plugin.",
    };
    choice(
        ui,
        panel,
        ParamId::Engine,
        &["Network", "Split", "Morph"],
        &look,
    );
}

fn levels(ui: &Ui, panel: &mut Panel, rect: Rect, meters: &Meters, holds: &mut Holds) {
    group(ui, rect, "Levels");
    let now_seconds = ui.input(|input| input.time);
    let is_paused = holds.pulse.pause_seconds(meters, now_seconds) > OLD_PEAKS_SECONDS;
    let unity = panel.control(ParamId::MainGain).default_value();
    let column = |number: f32| rect.left() + 10.0 + 68.0 * number;
    let strips: [(ParamId, f32, Color32, &Level, &mut Hold, &'static str); 3] = [
        (
            ParamId::MainGain,
            0.0,
            theme::MAIN,
            &meters.main,
            &mut holds.main,
            "gain of the main input.",
        ),
        (
            ParamId::SidechainGain,
            1.0,
            theme::SIDECHAIN,
            &meters.sidechain,
            &mut holds.sidechain,
            "gain of the sidechain.",
        ),
        (
            ParamId::OutputGain,
            3.0,
            theme::REMIX,
            &meters.output,
            &mut holds.output,
            "gain of what comes out.",
        ),
    ];
    for (id, number, color, level, hold, help) in strips {
        let x = column(number);
        let look = knob::Look {
            center: pos2(x + 30.0, rect.top() + 136.0),
            radius: SMALL_KNOB_RADIUS,
            color,
            origin: unity,
            held_at: None,
            help,
        };
        knob(ui, panel, id, &look);
        let bars = Rect::from_min_size(pos2(x + 23.0, rect.top() + 32.0), Vec2::new(14.0, 66.0));
        let gain = match id {
            ParamId::MainGain => panel.params.main_gain.value(),
            ParamId::SidechainGain => panel.params.sidechain_gain.value(),
            // Measured behind its gain.
            _ => 1.0,
        };
        let peaks = if is_paused { [0.0; 2] } else { level.peaks() };
        meter(ui, bars, peaks, gain, hold, color);
    }
    let look = knob::Look {
        center: pos2(column(2.0) + 30.0, rect.top() + 136.0),
        radius: SMALL_KNOB_RADIUS,
        color: theme::REMIX,
        origin: 0.0,
        held_at: None,
        help: "0 is the main input as it is, in time with the remix; 1 the remix.",
    };
    knob(ui, panel, ParamId::Mix, &look);
}

fn caption(ui: &Ui, at: Pos2, text: &str) {
    ui.painter().text(
        at,
        Align2::LEFT_TOP,
        text,
        theme::font(theme::SMALL),
        theme::DIM,
    );
}

/// Whether the sound passes as it is.
pub fn bypass(ui: &Ui, origin: Pos2, panel: &mut Panel) {
    let look = buttons::Look {
        rect: rect(872.0, 13.0, 76.0, 26.0).translate(origin.to_vec2()),
        text: "Bypass",
        color: theme::WARNING,
        help: "Bypass: the main input passes as it is, in time with the remix.",
    };
    switch(ui, panel, ParamId::Bypass, &look);
}
