//! Layout of the face. The positions of the parameters are in [`crate::params`].

use egui::{Align2, Color32, Pos2, Rect, Ui, pos2, vec2};

use super::buttons::{self, choice, switch};
use super::knob::{self, knob};
use super::meter::{Hold, meter};
use super::pad::pad;
use super::panel::Panel;
use super::theme;
use crate::control::{Group, Origin, Tint, Widget};
use crate::editor_size::FACE;
use crate::meters::{Level, Meters, Pulse};
use crate::params::{GraftParams, ParamId};

const PAD: Rect = rect(12.0, 52.0, 316.0, 316.0);
/// Position of the pictures.
pub const PICTURES: Rect = rect(336.0, 52.0, 612.0, 316.0);
/// Position of the button for models.
pub const MODEL: Rect = rect(664.0, 13.0, 200.0, 26.0);
/// Position of the status line.
pub const STATUS: Rect = rect(12.0, 572.0, 920.0, 24.0);

const TOOLBAR: Rect = rect(0.0, 0.0, FACE.x, 52.0);
/// The groups with a background, and their names.
const GROUPS: [(Group, Rect, &str); 4] = [
    (Group::Remix, rect(12.0, 376.0, 316.0, 192.0), "Remix"),
    (Group::Freeze, rect(336.0, 376.0, 116.0, 192.0), "Freeze"),
    (
        Group::Processing,
        rect(460.0, 376.0, 196.0, 192.0),
        "Processing",
    ),
    (Group::Levels, rect(664.0, 376.0, 284.0, 192.0), "Levels"),
];

/// Distance between the sides of a group and its choices.
const CHOICE_MARGIN: f32 = 12.0;
const CHOICE_HEIGHT: f32 = 22.0;

const fn rect(x: f32, y: f32, width: f32, height: f32) -> Rect {
    Rect {
        min: pos2(x, y),
        max: pos2(x + width, y + height),
    }
}

/// Peaks decay only while there is audio. After a pause of this length they are hidden.
const OLD_PEAKS_SECONDS: f64 = 0.25;

/// A level meter.
struct Strip {
    left: f32,
    color: Color32,
    level: fn(&Meters) -> &Level,
    /// The gain after the measuring point.
    gain: fn(&GraftParams) -> f32,
}

const STRIPS: [Strip; 3] = [
    Strip {
        left: 33.0,
        color: theme::MAIN,
        level: |meters| &meters.main,
        gain: |params| params.main_gain.value(),
    },
    Strip {
        left: 101.0,
        color: theme::SIDECHAIN,
        level: |meters| &meters.sidechain,
        gain: |params| params.sidechain_gain.value(),
    },
    Strip {
        left: 237.0,
        color: theme::REMIX,
        level: |meters| &meters.output,
        gain: |_| 1.0,
    },
];

/// The held peaks of all meters.
#[derive(Default)]
pub struct Holds {
    pulse: Pulse,
    strips: [Hold; STRIPS.len()],
}

/// Shows all parameters. `origin` is the face's upper left corner.
pub fn controls(ui: &Ui, origin: Pos2, panel: &mut Panel, meters: &Meters, holds: &mut Holds) {
    let at = |rect: Rect| rect.translate(origin.to_vec2());
    widgets(ui, panel, Group::Toolbar, at(TOOLBAR));
    pad(ui, panel, at(PAD));
    for (group, rect, name) in GROUPS {
        ground(ui, at(rect), name);
        widgets(ui, panel, group, at(rect));
        match group {
            Group::Remix if ParamId::Link.is_of(panel.params.engine.value()) => {
                link_lines(ui, at(rect));
            }
            Group::Levels => strips(ui, panel, at(rect), meters, holds),
            _ => {}
        }
    }
}

/// The background of a group, with its name.
pub fn ground(ui: &Ui, rect: Rect, name: &str) {
    ui.painter().rect_filled(rect, 6.0, theme::PANEL);
    ui.painter().text(
        rect.left_top() + vec2(12.0, 9.0),
        Align2::LEFT_TOP,
        name,
        theme::bold(theme::NORMAL),
        theme::TEXT,
    );
}

/// The parameters of a group that have an effect.
fn widgets(ui: &Ui, panel: &mut Panel, group: Group, rect: Rect) {
    let all = ParamId::ALL.iter().copied();
    let engine = panel.params.engine.value();
    let ids = all.filter(|id| id.shown().group == group && id.is_of(engine));
    let mut ids: Vec<ParamId> = ids.collect();
    if ids.is_empty() {
        caption(
            ui,
            rect.left_top() + vec2(CHOICE_MARGIN, 40.0),
            "Only with\na network.",
        );
    }
    // The Tab key visits knobs before switches.
    ids.sort_by_key(|id| !matches!(id.shown().widget, Widget::Knob { .. }));
    for id in ids {
        let shown = id.shown();
        let place = |[x, y]: [f32; 2]| rect.left_top() + vec2(x, y);
        let (help, color) = look(panel, id);
        match shown.widget {
            Widget::Knob {
                center,
                radius,
                origin,
                ..
            } => {
                let look = knob::Look {
                    name: shown.name,
                    center: place(center),
                    radius,
                    color,
                    origin: match origin {
                        Origin::Zero => 0.0,
                        Origin::Default => panel.control(id).default_value(),
                    },
                    held_at: is_led(panel, id).then(|| panel.value(ParamId::Harmony)),
                    help: &help,
                };
                knob(ui, panel, id, &look);
            }
            Widget::Switch { corner, size, .. } => {
                let look = buttons::Look {
                    rect: Rect::from_min_size(place(corner), size.into()),
                    text: shown.name,
                    color,
                    help: &help,
                };
                switch(ui, panel, id, &look);
            }
            Widget::Choice {
                name_top,
                top,
                words,
            } => {
                caption(ui, place([CHOICE_MARGIN, name_top]), shown.name);
                let size = vec2(rect.width() - 2.0 * CHOICE_MARGIN, CHOICE_HEIGHT);
                let look = buttons::Look {
                    rect: Rect::from_min_size(place([CHOICE_MARGIN, top]), size),
                    text: "",
                    color,
                    help: &help,
                };
                choice(ui, panel, id, words(), &look);
            }
        }
    }
}

/// The tooltip of a parameter and its colour.
fn look(panel: &Panel, id: ParamId) -> (String, Color32) {
    let shown = id.shown();
    let tint = match shown.widget {
        Widget::Knob { tint, .. } | Widget::Switch { tint, .. } => tint,
        Widget::Choice { .. } => Tint::Remix,
    };
    let unheard = match tint {
        Tint::Voice => why_no_voice(panel.params),
        _ => None,
    };
    let color = match tint {
        _ if unheard.is_some() || is_led(panel, id) => theme::DIM,
        Tint::Main => theme::MAIN,
        Tint::Sidechain => theme::SIDECHAIN,
        Tint::Remix | Tint::Voice => theme::REMIX,
        Tint::Sources => theme::blend(theme::MAIN, theme::SIDECHAIN, panel.value(id)),
        Tint::Warning => theme::WARNING,
    };
    let help = unheard.unwrap_or(shown.help);
    let label = panel.control(id).label();
    (format!("{label}: {help}"), color)
}

/// Whether another parameter controls this one.
fn is_led(panel: &Panel, id: ParamId) -> bool {
    id == ParamId::Rhythm && panel.is_on(ParamId::Link)
}

/// The reason why the model's voice has no effect, if it has none.
fn why_no_voice(params: &GraftParams) -> Option<&'static str> {
    let model = params.model.0.in_use(params.engine.value());
    if !model.is_ok_and(|model| model.header().generator.is_some()) {
        return Some("no effect: this model has no voice.");
    }
    let is_heard = params.latency.value().0.has_generated_voice();
    (!is_heard).then_some("no effect with Latency at Live.")
}

/// Lines from the switch Link to the two knobs.
fn link_lines(ui: &Ui, rect: Rect) {
    let (
        Widget::Knob { center: first, .. },
        Widget::Knob { center: second, .. },
        Widget::Switch { corner, size, .. },
    ) = (
        ParamId::Harmony.shown().widget,
        ParamId::Rhythm.shown().widget,
        ParamId::Link.shown().widget,
    )
    else {
        return;
    };
    let painter = ui.painter();
    let y = rect.top() + corner[1] + 0.5 * size[1];
    for (knob_x, switch_x) in [(first[0], corner[0]), (second[0], corner[0] + size[0])] {
        let corner = pos2(rect.left() + knob_x, y);
        painter.line_segment([corner - vec2(0.0, 14.0), corner], (1.0, theme::LINE));
        painter.line_segment(
            [corner, pos2(rect.left() + switch_x, y)],
            (1.0, theme::LINE),
        );
    }
}

/// The meters.
fn strips(ui: &Ui, panel: &Panel, rect: Rect, meters: &Meters, holds: &mut Holds) {
    let now_seconds = ui.input(|input| input.time);
    let is_paused = holds.pulse.pause_seconds(meters, now_seconds) > OLD_PEAKS_SECONDS;
    for (strip, hold) in STRIPS.iter().zip(&mut holds.strips) {
        let corner = rect.left_top() + vec2(strip.left, 32.0);
        let bars = Rect::from_min_size(corner, vec2(14.0, 66.0));
        let peaks = match is_paused {
            true => [0.0; 2],
            false => (strip.level)(meters).peaks(),
        };
        let gain = (strip.gain)(panel.params);
        meter(ui, bars, peaks, gain, hold, strip.color);
    }
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
