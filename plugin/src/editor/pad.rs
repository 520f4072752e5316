//! The XY pad: the source of one factor from left to right, of another from bottom to top.

use egui::epaint::Vertex;
use egui::text::LayoutJob;
use egui::{
    Align, Align2, Color32, CursorIcon, Id, Mesh, PointerButton, Pos2, Rect, Response, Sense,
    Shape, Stroke, StrokeKind, TextFormat, Ui, Vec2, pos2, vec2,
};

use super::knob::{FINE, keys, moved};
use super::panel::Panel;
use super::theme;
use crate::params::ParamId;

/// What the pad sets.
struct Axes {
    /// From left to right, and from bottom to top.
    ids: [ParamId; 2],
    /// Whether the second follows the first: then the handle stays on the diagonal.
    linked: bool,
}

impl Axes {
    /// Those of the engine.
    fn of(panel: &Panel) -> Self {
        let of_music = [ParamId::Harmony, ParamId::Rhythm];
        match of_music[0].is_of(panel.params.engine.value()) {
            true => Self {
                ids: of_music,
                linked: panel.is_on(ParamId::Link),
            },
            false => Self {
                ids: [ParamId::Timbre, ParamId::Pitch],
                linked: false,
            },
        }
    }

    /// The parameters that the handle moves.
    fn moved(&self) -> &[ParamId] {
        match self.linked {
            true => &self.ids[..1],
            false => &self.ids,
        }
    }

    /// The names within a sentence.
    fn names(&self) -> [String; 2] {
        self.ids.map(|id| id.shown().name.to_lowercase())
    }
}

/// Radius of the handle.
const HANDLE: f32 = 10.0;
/// Margin around the handle's range; the corners' names are there.
const MARGIN: Vec2 = vec2(26.0, 56.0);

const HELP: &str = "Drag to change, Shift-drag for fine control, double-click to reset, right-click to type values.";

/// Shows the pad.
pub fn pad(ui: &Ui, panel: &mut Panel, rect: Rect) {
    let area = rect.shrink2(MARGIN);
    let axes = Axes::of(panel);
    let response = ui.interact(rect, Id::unique("pad"), Sense::click_and_drag());
    drag(ui, panel, area, &axes, &response);
    click(panel, area, &axes, &response);
    let [x_id, y_id] = match axes.linked {
        true => [axes.ids[0]; 2],
        false => axes.ids,
    };
    if response.has_focus() {
        keys(ui, panel, response.id, [x_id, y_id]);
    }
    if response.hovered() || response.dragged() {
        ui.ctx().set_cursor_icon(CursorIcon::Crosshair);
    }

    background(ui, rect);
    corners(ui, rect, &axes.names());
    if axes.linked {
        ui.painter().line_segment(
            [place(area, 0.0, 0.0), place(area, 1.0, 1.0)],
            Stroke::new(1.0, theme::DIM),
        );
    }
    handle(ui, area, [x_id, y_id].map(|id| panel.value(id)));
    let outline = if response.has_focus() {
        theme::TEXT
    } else {
        theme::LINE
    };
    ui.painter()
        .rect_stroke(rect, 6.0, Stroke::new(1.0, outline), StrokeKind::Inside);
    let [x_name, y_name] = axes.names();
    response.on_hover_text_at_pointer(format!("Source of {x_name} and {y_name}. {HELP}"));
}

/// Handles drags of the handle.
fn drag(ui: &Ui, panel: &mut Panel, area: Rect, axes: &Axes, response: &Response) {
    let [x, y] = axes.ids;
    if response.drag_started_by(PointerButton::Primary) {
        axes.moved().iter().for_each(|&id| panel.begin(id));
    }
    // The pointer may move and release in the same frame.
    if (response.dragged() || response.drag_stopped())
        && panel.is_held(x)
        && let Some(pointer) = response.interact_pointer_pos()
    {
        if ui.input(|input| input.modifiers.shift) {
            let by = FINE * moved(ui, response) / area.size();
            match axes.linked {
                true => panel.drag_by(x, 0.5 * (by.x - by.y)),
                false => {
                    panel.drag_by(x, by.x);
                    panel.drag_by(y, -by.y);
                }
            }
        } else {
            drag_to(panel, axes, value_at(area, pointer));
        }
    }
    if response.drag_stopped() {
        axes.moved().iter().for_each(|&id| panel.end(id));
    }
}

/// Handles clicks: a click moves the handle, a double-click resets it, a right-click opens the box for typing.
fn click(panel: &mut Panel, area: Rect, axes: &Axes, response: &Response) {
    let moved = axes.moved();
    if response.double_clicked() {
        let defaults = moved
            .iter()
            .map(|&id| (id, panel.control(id).default_value()));
        panel.set_all(&defaults.collect::<Vec<_>>());
    } else if response.clicked()
        && let Some(pointer) = response.interact_pointer_pos()
    {
        moved.iter().for_each(|&id| panel.begin(id));
        drag_to(panel, axes, value_at(area, pointer));
        moved.iter().for_each(|&id| panel.end(id));
    }
    if response.secondary_clicked()
        && let Some(pointer) = response.interact_pointer_pos()
    {
        panel.type_values(moved, pointer);
    }
}

fn drag_to(panel: &mut Panel, axes: &Axes, value: Vec2) {
    let [x, y] = axes.ids;
    match axes.linked {
        true => panel.drag_to(x, 0.5 * (value.x + value.y)),
        false => {
            panel.drag_to(x, value.x);
            panel.drag_to(y, value.y);
        }
    }
}

fn value_at(area: Rect, pointer: Pos2) -> Vec2 {
    let share = (pointer - area.left_bottom()) / area.size();
    vec2(share.x.clamp(0.0, 1.0), (-share.y).clamp(0.0, 1.0))
}

fn place(area: Rect, x: f32, y: f32) -> Pos2 {
    pos2(
        egui::lerp(area.x_range(), x),
        egui::lerp(area.bottom()..=area.top(), y),
    )
}

/// Fills each corner with the colours of its sources.
fn background(ui: &Ui, rect: Rect) {
    const STEPS: usize = 16;
    let mut mesh = Mesh::default();
    for row in 0..=STEPS {
        for column in 0..=STEPS {
            let (x, y) = (column as f32 / STEPS as f32, row as f32 / STEPS as f32);
            let hue = theme::blend(theme::MAIN, theme::SIDECHAIN, 0.5 * (x + y));
            let middle = vec2(x - 0.5, y - 0.5).length();
            mesh.vertices.push(Vertex::untextured(
                place(rect, x, y),
                theme::blend(theme::PANEL, hue, 0.05 + 0.16 * middle),
            ));
        }
    }
    let index = |row: usize, column: usize| (row * (STEPS + 1) + column) as u32;
    for row in 0..STEPS {
        for column in 0..STEPS {
            mesh.add_triangle(
                index(row, column),
                index(row, column + 1),
                index(row + 1, column),
            );
            mesh.add_triangle(
                index(row + 1, column),
                index(row, column + 1),
                index(row + 1, column + 1),
            );
        }
    }
    ui.painter().add(Shape::mesh(mesh));
    // Covers the square corners of the mesh with rounded ones.
    ui.painter().rect_stroke(
        rect,
        6.0,
        Stroke::new(3.0, theme::BACKGROUND),
        StrokeKind::Outside,
    );
    let area = rect.shrink2(MARGIN);
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let alpha = if share == 0.25 || share == 0.75 {
            9
        } else {
            20
        };
        let stroke = Stroke::new(1.0, Color32::from_white_alpha(alpha));
        ui.painter()
            .vline(place(area, share, 0.0).x, area.y_range(), stroke);
        ui.painter()
            .hline(area.x_range(), place(area, 0.0, share).y, stroke);
    }
}

/// Names the sources at the corners. Along x is one factor, along y the other.
fn corners(ui: &Ui, rect: Rect, [x, y]: &[String; 2]) {
    let inner = rect.shrink(10.0);
    let (x, y) = (format!("’s {x}"), format!("’s {y}"));
    let words = |align: Align, lines: &[(&str, &str, Color32)]| {
        let mut job = LayoutJob {
            halign: align,
            ..LayoutJob::default()
        };
        for (number, (source, what, color)) in lines.iter().enumerate() {
            let break_before = if number == 0 { "" } else { "\n" };
            let format = |font, color| TextFormat::simple(font, color);
            job.append(
                &format!("{break_before}{source}"),
                0.0,
                format(theme::bold(theme::NORMAL), *color),
            );
            job.append(what, 0.0, format(theme::font(theme::NORMAL), theme::DIM));
        }
        ui.painter().layout_job(job)
    };
    let (main, sidechain) = (theme::MAIN, theme::SIDECHAIN);
    let texts = [
        (
            Align2::LEFT_BOTTOM,
            inner.left_bottom(),
            vec![("Main", "", main)],
        ),
        (
            Align2::RIGHT_TOP,
            inner.right_top(),
            vec![("Sidechain", "", sidechain)],
        ),
        (
            Align2::LEFT_TOP,
            inner.left_top(),
            vec![("Main", &x, main), ("Sidechain", &y, sidechain)],
        ),
        (
            Align2::RIGHT_BOTTOM,
            inner.right_bottom(),
            vec![("Sidechain", &x, sidechain), ("Main", &y, main)],
        ),
    ];
    for (corner, at, lines) in texts {
        let galley = words(corner.x(), &lines);
        let top = match corner.y() {
            Align::Max => at.y - galley.size().y,
            _ => at.y,
        };
        // The position of a right-aligned galley is its right end.
        ui.painter().galley(pos2(at.x, top), galley, theme::DIM);
    }
}

fn handle(ui: &Ui, area: Rect, [x, y]: [f32; 2]) {
    let at = place(area, x, y);
    let painter = ui.painter();
    let faint = Color32::from_white_alpha(46);
    painter.hline(area.x_range(), at.y, Stroke::new(1.0, faint));
    painter.vline(at.x, area.y_range(), Stroke::new(1.0, faint));
    painter.circle_filled(at, HANDLE, Color32::from_black_alpha(150));
    // The left half shows the source of the factor along x, the right half that of the other.
    for (value, from) in [(x, 0.25), (y, -0.25)] {
        let color = theme::blend(theme::MAIN, theme::SIDECHAIN, value);
        let points = (0..=24).map(|step| {
            let turn = from + 0.5 * step as f32 / 24.0;
            let angle = turn * std::f32::consts::TAU;
            at + (HANDLE - 3.0) * vec2(angle.cos(), angle.sin())
        });
        painter.add(Shape::convex_polygon(points.collect(), color, Stroke::NONE));
    }
    painter.circle_stroke(at, HANDLE, Stroke::new(2.0, theme::TEXT));
}
