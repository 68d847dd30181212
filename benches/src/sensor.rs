//! A deterministic sensor file (NDJSON, about 94 bytes a row): event time advances 1 ms a row, arrival is out of order
//! by less than 2 s, 1000 devices, temperatures of which 90 % lie in [0, 100].

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

const BASE_MS: i64 = 1_700_000_000_000;

/// Makes `<folder>/sensor-<rows>.ndjson` unless it is there, and returns its path.
pub fn file(folder: &Path, rows: u64) -> std::io::Result<PathBuf> {
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("sensor-{rows}.ndjson"));
    if path.exists() {
        return Ok(path);
    }
    let partial = folder.join(format!(".sensor-{rows}.partial"));
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(&partial)?);
    let mut rng = SmallRng::seed_from_u64(42);
    for i in 0..rows {
        let device = rng.random_range(0..1000);
        let ts = BASE_MS + i as i64 + rng.random_range(0..2000);
        // A sum of uniforms is near enough to a normal distribution of mean 50 and deviation 30.
        let bell: i32 = (0..4).map(|_| rng.random_range(-260..=260)).sum();
        let temperature = f64::from(500 + bell) / 10.0;
        let vibration = f64::from(rng.random_range(0..100)) / 100.0;
        let pressure = f64::from(rng.random_range(10..90)) / 10.0;
        writeln!(
            out,
            r#"{{"device_id":"dev-{device}","ts":{ts},"temperature":{temperature:?},"vibration":{vibration:?},"pressure":{pressure:?}}}"#
        )?;
    }
    out.into_inner()?.sync_all()?;
    std::fs::rename(partial, &path)?;
    Ok(path)
}
