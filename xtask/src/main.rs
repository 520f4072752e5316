//! Placeholder.
mod audio_file;
mod progress;
#[cfg(test)]
mod test_folder;
mod train;
fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    train::train(&train::Job {
        recipe: args[2].clone().into(),
        data: vec![args[3].clone().into()],
        run: args[4].clone().into(),
        until: match args[5].strip_suffix('m') {
            Some(m) => {
                train::Until::Time(std::time::Duration::from_secs_f64(m.parse::<f64>()? * 60.0))
            }
            None => train::Until::Step(args[5].parse()?),
        },
        resume: args.len() > 6,
    })
}
