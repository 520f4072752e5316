//! Checks the latencies listed in `docs/latency.md`.

use std::fmt::Write;

use model_runtime::geometry::{Geometry, GeometrySettings};
use model_runtime::worker::WindowProcessor;
use model_runtime::{LatencyMode, Model, RemixStream, StreamSettings, Voice};

const PAGE: &str = include_str!("../../docs/latency.md");

const RATES_HZ: [u32; 3] = [44_100, 48_000, 96_000];

/// A host block that is no longer than any mode's compute allowance.
const BLOCK_SAMPLES: usize = 512;

fn stream(sample_rate_hz: u32, mode: LatencyMode) -> RemixStream {
    let settings = StreamSettings {
        sample_rate_hz,
        voice: Voice::Guided,
        mode,
    };
    RemixStream::new(&Model::built_in().unwrap(), settings).unwrap()
}

fn geometry(stream: &RemixStream, sample_rate_hz: u32, mode: LatencyMode) -> Geometry {
    Geometry::new(&GeometrySettings {
        mode,
        frame_seconds: stream.frame_seconds(),
        sample_rate_hz: sample_rate_hz as f32,
        max_block_samples: BLOCK_SAMPLES,
        processor_latency_samples: stream.latency_samples(),
    })
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
            let ms = 1000.0 * total as f64 / f64::from(rate);
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
    assert!(
        PAGE.contains(&table),
        "docs/latency.md needs this table:\n\n{table}"
    );
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
