//! The live line on a terminal: rows per second in and out, watermark delay, last checkpoint, memory.

use ef_client::embedded::View;
use ef_client::summary::{bytes, count};
use std::io::Write;

pub struct Live;

impl Live {
    pub fn show(view: &View) {
        let delay = match view.watermark_delay_ms {
            Some(ms) => format!("{:.1} s", ms as f64 / 1e3),
            None => "-".into(),
        };
        let checkpoint = match view.last_checkpoint {
            Some((epoch, age_ms)) => format!("{epoch} ({:.0} s ago)", age_ms as f64 / 1e3),
            None => "-".into(),
        };
        // A terminal that is gone is no reason to stop the job.
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[Kin {}/s  out {}/s  watermark {delay} behind  checkpoint {checkpoint}  memory {}",
            count(view.rows_in_per_second),
            count(view.rows_out_per_second),
            bytes(view.resident_bytes)
        );
    }

    pub fn clear() {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}
