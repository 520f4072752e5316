//! Checks the latencies listed in `docs/latency.md`.

mod common;

use std::fmt::Write;

use model_runtime::geometry::{Geometry, GeometrySettings};
use model_runtime::worker::WindowProcessor;
use model_runtime::{ClassicStream, LatencyMode, Model, RemixStream, StreamSettings, Voice};
use vocoder::MelConfig;
use vocoder::classic::Method;

const PAGE: &str = include_str!("../../docs/latency.md");

const RATES_HZ: [u32; 3] = [44_100, 48_000, 96_000];

/// The host's block in the tables.
const BLOCK_SAMPLES: usize = 64;

fn stream(sample_rate_hz: u32, mode: LatencyMode) -> RemixStream {
    stream_of(&Model::built_in().unwrap(), sample_rate_hz, mode)
}

fn stream_of(model: &Model, sample_rate_hz: u32, mode: LatencyMode) -> RemixStream {
    let settings = StreamSettings {
        sample_rate_hz,
        voice: Voice::Guided,
        mode,
    };
    RemixStream::new(model, settings).unwrap()
}

fn geometry(stream: &impl WindowProcessor, sample_rate_hz: u32, mode: LatencyMode) -> Geometry {
    Geometry::new(&settings(stream, sample_rate_hz, mode))
}

fn settings(
    stream: &impl WindowProcessor,
    sample_rate_hz: u32,
    mode: LatencyMode,
) -> GeometrySettings {
    GeometrySettings {
        mode,
        frame_seconds: stream.frame_seconds(),
        sample_rate_hz: sample_rate_hz as f32,
        max_block_samples: BLOCK_SAMPLES,
        processor_latency_samples: stream.latency_samples(),
    }
}

fn ms(samples: usize, sample_rate_hz: u32) -> f64 {
    1000.0 * samples as f64 / f64::from(sample_rate_hz)
}

#[test]
fn the_page_has_the_table_of_all_terms() {
    let mut table = String::from(
        "| mode | rate in Hz | window | compute allowance | resampling | analysis | grouping | network | voice | rounding \
         | **samples** | **ms** |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for mode in LatencyMode::ALL {
        for rate in RATES_HZ {
            let stream = stream(rate, mode);
            let terms = stream.latency();
            let geometry = geometry(&stream, rate, mode);
            let rounding = terms.total_samples()
                - terms.resampling_samples
                - terms.analysis_samples
                - terms.grouping_samples
                - terms.network_samples
                - terms.voice_samples;
            let total = geometry.latency_samples();
            let ms = ms(total, rate);
            writeln!(
                table,
                "| {mode:?} | {rate} | {} | {} | {} | {} | {} | {} | {} | {rounding} | {total} | {ms:.1} |",
                geometry.window_samples,
                geometry.compute_allowance_samples,
                terms.resampling_samples,
                terms.analysis_samples,
                terms.grouping_samples,
                terms.network_samples,
                terms.voice_samples,
            )
            .unwrap();
        }
    }
    expect(&table);
}

#[test]
fn the_page_has_the_table_of_the_engine_timbre() {
    let model = Model::built_in_timbre().unwrap();
    let mut table =
        String::from("| mode | 44.1 kHz | 48 kHz | 96 kHz |\n| --- | --- | --- | --- |\n");
    for mode in LatencyMode::ALL {
        write!(table, "| {mode:?} |").unwrap();
        for rate in RATES_HZ {
            let samples = geometry(&stream_of(&model, rate, mode), rate, mode).latency_samples();
            let ms = ms(samples, rate);
            assert!(mode != LatencyMode::Live || ms <= 100.0, "{rate}: {ms}");
            write!(table, " {samples} ({ms:.1} ms) |").unwrap();
        }
        table.push('\n');
    }
    expect(&table);
}

fn expect(table: &str) {
    assert!(
        PAGE.contains(table),
        "docs/latency.md needs this table:\n\n{table}"
    );
}

/// An engine without a network, with the exchange of Live, as in the plugin.
fn classic(method: Method, mode: LatencyMode, sample_rate_hz: u32) -> usize {
    let stream = ClassicStream::new(method, mode, sample_rate_hz).unwrap();
    geometry(&stream, sample_rate_hz, LatencyMode::Live).latency_samples()
}

const ENGINES: [(&str, Method); 3] = [
    ("Split", Method::Separation),
    ("Morph", Method::Morphing),
    ("Envelope", Method::Timbre),
];

#[test]
fn the_page_has_the_table_of_the_engines_without_a_network() {
    let mut table = String::from(
        "| engine | mode | 44.1 kHz | 48 kHz | 96 kHz |\n| --- | --- | --- | --- | --- |\n",
    );
    for (engine, method) in ENGINES {
        for (mode, name) in [
            (LatencyMode::Live, "Live"),
            (LatencyMode::Default, "Default, Full"),
        ] {
            write!(table, "| {engine} | {name} |").unwrap();
            for rate in RATES_HZ {
                let samples = classic(method, mode, rate);
                write!(table, " {samples} ({:.1} ms) |", ms(samples, rate)).unwrap();
            }
            table.push('\n');
        }
    }
    expect(&table);
}

#[test]
fn the_page_has_the_table_of_blocks_in_live() {
    let mut table = String::from(
        "| block at 48 kHz | window | compute allowance | ms of both |\n| --- | --- | --- | --- |\n",
    );
    let stream = stream(48_000, LatencyMode::Live);
    for max_block_samples in [64, 128, 256, 512, 1024, 2048] {
        let geometry = Geometry::new(&GeometrySettings {
            max_block_samples,
            ..settings(&stream, 48_000, LatencyMode::Live)
        });
        let (window, allowance) = (geometry.window_samples, geometry.compute_allowance_samples);
        let both = ms(window + allowance, 48_000);
        writeln!(
            table,
            "| {max_block_samples} | {window} | {allowance} | {both:.1} |"
        )
        .unwrap();
    }
    expect(&table);
}

#[test]
fn the_modes_keep_their_limits() {
    let total = |mode| {
        let stream = stream(44_100, mode);
        geometry(&stream, 44_100, mode).latency_samples()
    };
    let [live, default, full] = LatencyMode::ALL.map(total);
    assert!(default <= 20_480, "{default}");
    assert!(live < default && default < full);
    // The latency of Live is less than half that of the plugin of HARD's authors.
    assert!(2 * live < 20_480, "{live}");

    for rate in RATES_HZ {
        // A tenth of a second with a network that averages two frames.
        let model = common::small_model_averaging(2, MelConfig::default());
        let live = geometry(
            &stream_of(&model, rate, LatencyMode::Live),
            rate,
            LatencyMode::Live,
        );
        assert!(
            ms(live.latency_samples(), rate) <= 100.0,
            "{rate}: {live:?}"
        );
        let exchange = live.window_samples + live.compute_allowance_samples;
        assert!(ms(exchange, rate) <= 20.0, "{rate}: {live:?}");
        for ((engine, method), most_ms) in ENGINES.into_iter().zip([60.0, 40.0, 40.0]) {
            let found = ms(classic(method, LatencyMode::Live, rate), rate);
            assert!(found <= most_ms, "{engine}, {rate}: {found}");
        }
    }
}

#[test]
fn in_live_the_allowance_grows_with_the_block_and_leaves_time_to_work() {
    for rate in RATES_HZ {
        let stream = stream(rate, LatencyMode::Live);
        let mut last = 0;
        for max_block_samples in 1..=4096 {
            let settings = GeometrySettings {
                max_block_samples,
                ..settings(&stream, rate, LatencyMode::Live)
            };
            let geometry = Geometry::new(&settings);
            let allowance = geometry.compute_allowance_samples;
            assert!(allowance >= last && allowance >= max_block_samples);
            last = allowance;
            // The worker gets a window up to a block after its last sample, and has a third of a frame left. Hosts with blocks of
            // more than half a frame got a frame in total before.
            let frame = settings.frame_seconds * f64::from(rate);
            let left = allowance as f64 - max_block_samples as f64;
            assert!(
                left > 0.33 * frame || max_block_samples as f64 > 0.6 * frame,
                "{rate}, {max_block_samples}: {left}"
            );
        }
    }
}

#[test]
fn a_long_block_gets_its_time() {
    let long = Geometry::new(&GeometrySettings {
        mode: LatencyMode::Live,
        frame_seconds: 0.023,
        sample_rate_hz: 44_100.0,
        max_block_samples: 8192,
        processor_latency_samples: 0,
    });
    assert_eq!(long.compute_allowance_samples, 8192);
}
