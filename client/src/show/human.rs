//! Ages, times, sizes and counts as a person reads them in a table: short, without blanks, so that `awk` still finds
//! its columns. Pure; the caller knows what time it is.

use crate::summary;

/// What stands in a table where there is nothing to say.
pub const NOTHING: &str = "-";

/// As kubectl writes ages: `42s`, `5m32s`, `47m`, `3h5m`, `17h`, `2d3h`, `45d`, `2y`. The longer, the coarser.
pub fn age(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: u64, unit: char, small: u64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ => two(days / 365, 'y', days % 365, 'd'),
    }
}

/// How long ago `at_ms` was; 0 stands for never. What a faster clock says is in the future was just now.
pub fn since(now_ms: u64, at_ms: u64) -> String {
    if at_ms == 0 { NOTHING.into() } else { age(now_ms.saturating_sub(at_ms)) }
}

/// `87ms`, `1.25s`, and from two minutes on as an age.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..120_000 => format!("{:.2}s", ms as f64 / 1e3),
        _ => age(ms),
    }
}

/// `12.3MB`.
pub fn size(bytes: u64) -> String {
    summary::bytes(bytes).replace(' ', "")
}

/// `12.3k`.
pub fn count(n: u64) -> String {
    summary::count(n).replace(' ', "")
}

/// Cores, as kubectl writes them: `250m` is a quarter of one.
pub fn cpu(millis: u32) -> String {
    format!("{millis}m")
}

/// The text, or a dash for none.
pub fn or_nothing(text: &str) -> String {
    if text.is_empty() { NOTHING.into() } else { text.into() }
}

/// `2026-11-21T20:38:02.123Z`; a dash for 0.
pub fn timestamp(ms: u64) -> String {
    if ms == 0 {
        return NOTHING.into();
    }
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = date(days);
    let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (second, milli) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z")
}

/// Year, month and day of a number of days since 1970-01-01, in the Gregorian calendar. Years are counted from March,
/// so that the leap day is the last of its year; 146 097 days are 400 years.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, in_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * march + 2) / 5 + 1;
    let month = if march < 10 { march + 3 } else { march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1000;
    const M: u64 = 60 * S;
    const H: u64 = 60 * M;
    const D: u64 = 24 * H;

    #[test]
    fn ages_get_coarser_as_they_get_longer() {
        let cases = [
            (0, "0s"),
            (999, "0s"),
            (119 * S, "119s"),
            (2 * M, "2m"),
            (5 * M + 32 * S, "5m32s"),
            (10 * M + 59 * S, "10m"),
            (179 * M, "179m"),
            (3 * H, "3h"),
            (3 * H + 5 * M, "3h5m"),
            (8 * H + 5 * M, "8h"),
            (47 * H, "47h"),
            (2 * D + 3 * H, "2d3h"),
            (8 * D + 3 * H, "8d"),
            (729 * D, "729d"),
            (730 * D, "2y"),
            (740 * D, "2y10d"),
        ];
        for (ms, text) in cases {
            assert_eq!(age(ms), text, "{ms} ms");
        }
    }

    #[test]
    fn what_never_was_has_no_age_and_what_is_to_come_is_now() {
        assert_eq!(since(5000, 0), "-");
        assert_eq!(since(5000, 2000), "3s");
        assert_eq!(since(5000, 9000), "0s");
    }

    #[test]
    fn sizes_counts_and_durations_are_one_word() {
        let cases = [
            (size(0), "0B"),
            (size(9_999), "9999B"),
            (size(12_345_678), "12.3MB"),
            (count(9_999), "9999"),
            (count(1_234_567), "1234.6k"),
            (duration(87), "87ms"),
            (duration(1_250), "1.25s"),
            (duration(332_000), "5m32s"),
            (cpu(250), "250m"),
            (or_nothing(""), "-"),
        ];
        for (found, text) in cases {
            assert_eq!(found, text);
        }
    }

    #[test]
    fn timestamps_are_right_on_leap_days_and_at_the_ends_of_years() {
        let cases = [
            (1, "1970-01-01T00:00:00.001Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_709_164_800_000, "2024-02-29T00:00:00.000Z"),
            (1_735_689_599_000, "2024-12-31T23:59:59.000Z"),
            (1_735_689_600_000, "2025-01-01T00:00:00.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(timestamp(ms), text, "{ms}");
        }
        assert_eq!(timestamp(0), "-");
    }
}
