//! The status line: latency, load, late windows, and problems.

use egui::{Align2, Color32, Id, Rect, Sense, Ui, pos2, vec2};
use model_runtime::LatencyMode;
use model_runtime::status::Status;
use nice_plug::prelude::PluginApi;

use super::buttons::{self, button};
use super::doctor::Advice;
use super::panel::Panel;
use super::{report, theme};
use crate::readout::Readout;
use crate::setup::{Activation, LatencyTerms};

/// A worker load above this share of real time is shown as a warning.
const BUSY: f32 = 0.7;

/// Width of the bar of the latency's terms per second of latency, its height, and the least width of a term that shows its
/// length.
const BAR_POINTS_PER_SECOND: f32 = 1000.0;
const BAR_HEIGHT: f32 = 14.0;
const NUMBER_WIDTH: f32 = 14.0;

/// Shows the line.
pub fn line(
    ui: &Ui,
    rect: Rect,
    panel: &mut Panel,
    readout: &Readout,
    advice: Option<&Advice>,
    api: PluginApi,
) {
    let status = &readout.status;
    let mut x = rect.left();
    let latency = match readout.activation() {
        Some(activation) => {
            let ms = 1000.0 * activation.latency_seconds();
            format!("{ms:.0} ms · {} samples", activation.latency_samples)
        }
        None => "inactive".to_owned(),
    };
    let help = "Latency as reported to the host, which compensates it.";
    x = item(ui, rect, x, "Latency", &latency, theme::TEXT, help);
    let live = readout.activation();
    let live = live.filter(|activation| activation.setup.mode == LatencyMode::Live);
    // Problems need the room.
    if let Some(activation) = live.filter(|_| fault(status).is_none() && advice.is_none()) {
        x = terms(ui, rect, x - 10.0, &activation);
    }

    let factor = status.real_time_factor();
    let (work, color) = match factor {
        0.0 => ("idle".to_owned(), theme::TEXT),
        _ => {
            let spare = 100.0 * (1.0 - factor).max(0.0);
            let color = if factor > BUSY {
                theme::WARNING
            } else {
                theme::TEXT
            };
            (
                format!("{:.0} % · {spare:.0} % free", 100.0 * factor),
                color,
            )
        }
    };
    let help = "Worker: CPU load of the remix, as a share of real time. \
                Above 100 % it misses deadlines and the main input plays instead.";
    x = item(ui, rect, x, "Worker", &work, color, help);

    let late = status.late_windows();
    let color = if late > 0 {
        theme::WARNING
    } else {
        theme::TEXT
    };
    let help =
        "Late: how many times the remix missed its deadline and the main input played instead.";
    x = item(ui, rect, x, "Late", &late.to_string(), color, help);

    let copy = Rect::from_min_size(pos2(x, rect.center().y - 10.0), vec2(76.0, 20.0));
    report::button(ui, copy, || report::text(panel.params, readout, api));

    match (fault(status), advice) {
        (Some(fault), _) => {
            words(ui, rect.right(), rect, &fault, theme::WARNING);
        }
        (None, Some(advice)) => remedy(ui, rect, panel, advice),
        (None, None) => {}
    }
}

/// A bar of the terms of the latency, with their lengths in milliseconds. Returns the position of the next item.
fn terms(ui: &Ui, rect: Rect, x: f32, activation: &Activation) -> f32 {
    let LatencyTerms {
        terms,
        short_block_gain_samples,
    } = activation.latency_terms;
    let seconds = |samples: usize| samples as f32 / activation.sample_rate_hz;
    let top = rect.center().y - 0.5 * BAR_HEIGHT;
    let painter = ui.painter();
    let mut left = x;
    for (index, (_, samples)) in terms.iter().enumerate() {
        let width = BAR_POINTS_PER_SECOND * seconds(*samples);
        let term = Rect::from_min_size(pos2(left, top), vec2(width, BAR_HEIGHT));
        let shade = theme::blend(theme::LINE, theme::DIM, 0.5 * (index % 2) as f32);
        painter.rect_filled(term, 1.0, shade);
        if width >= NUMBER_WIDTH {
            painter.text(
                term.center(),
                Align2::CENTER_CENTER,
                format!("{:.0}", 1000.0 * seconds(*samples)),
                theme::font(theme::SMALL),
                theme::TEXT,
            );
        }
        left += width;
    }
    let bar = Rect::from_min_max(pos2(x, top), pos2(left, top + BAR_HEIGHT));
    ui.interact(bar, Id::unique("latency terms"), Sense::hover())
        .on_hover_text(terms_help(activation, &terms, short_block_gain_samples));
    left + 20.0
}

fn terms_help(
    activation: &Activation,
    terms: &[(&str, usize)],
    short_block_gain_samples: usize,
) -> String {
    let ms = |samples: usize| 1000.0 * samples as f32 / activation.sample_rate_hz;
    let terms = terms.iter().filter(|(_, samples)| *samples > 0);
    let terms: Vec<String> = terms
        .map(|(name, samples)| format!("{name} {:.0} ms", ms(*samples)))
        .collect();
    let block = LatencyTerms::SHORT_BLOCK_SAMPLES;
    let advice = match short_block_gain_samples {
        0 => "A shorter buffer of the host would not lower it.".to_owned(),
        gain => format!(
            "With a buffer of {block} samples in the host, it would be {:.0} ms lower.",
            ms(gain)
        ),
    };
    format!(
        "What the latency is made of: {}. {advice}",
        terms.join(", ")
    )
}

fn fault(status: &Status) -> Option<String> {
    let fault = status.last_fault()?;
    Some(format!("{fault} ({} in total)", status.faults()))
}

fn remedy(ui: &Ui, rect: Rect, panel: &mut Panel, advice: &Advice) {
    let mut right = rect.right();
    if let Some((text, id, value)) = &advice.remedy {
        let width = 96.0;
        let look = buttons::Look {
            rect: Rect::from_center_size(
                pos2(right - 0.5 * width, rect.center().y),
                vec2(width, 20.0),
            ),
            text,
            color: theme::SIDECHAIN,
            help: "Sets the sidechain’s gain to match the level of the main input.",
        };
        if button(ui, Id::unique("remedy"), true, &look).clicked() {
            panel.set(*id, *value);
        }
        right -= width + 8.0;
    }
    words(ui, right, rect, &advice.text, theme::SIDECHAIN);
}

/// Right-aligned text that ends at `right`, with a warning mark before it.
fn words(ui: &Ui, right: f32, rect: Rect, text: &str, color: Color32) {
    let at = ui.painter().text(
        pos2(right, rect.center().y),
        Align2::RIGHT_CENTER,
        text,
        theme::font(theme::NORMAL),
        color,
    );
    let mark = pos2(at.left() - 12.0, rect.center().y);
    ui.painter().circle_stroke(mark, 6.0, (1.2, color));
    ui.painter()
        .text(mark, Align2::CENTER_CENTER, "!", theme::bold(9.5), color);
}

/// A label and a value. Returns the position of the next item.
fn item(ui: &Ui, rect: Rect, x: f32, name: &str, value: &str, color: Color32, help: &str) -> f32 {
    let painter = ui.painter();
    let y = rect.center().y;
    let font = theme::font(theme::NORMAL);
    let name_rect = painter.text(
        pos2(x, y),
        Align2::LEFT_CENTER,
        name,
        font.clone(),
        theme::DIM,
    );
    let at = pos2(name_rect.right() + 6.0, y);
    let value_rect = painter.text(at, Align2::LEFT_CENTER, value, font, color);
    ui.interact(
        name_rect.union(value_rect),
        Id::unique(("status", name)),
        Sense::hover(),
    )
    .on_hover_text(help);
    value_rect.right() + 20.0
}
