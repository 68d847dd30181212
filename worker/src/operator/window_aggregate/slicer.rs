//! Window arithmetic: time is cut into slices such that every window is a run of whole slices; a row goes to one
//! slice only. All times in ms; windows and slices are [start, end).

use ef_proto::plan::Window;

/// TUMBLE, HOP and CUMULATE. Slices are named by their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slicer {
    /// Length of a slice.
    slice: i64,
    /// Distance of two window ends.
    step: i64,
    /// Length of a window; of the longest, for CUMULATE.
    size: i64,
    offset: i64,
    cumulate: bool,
}

impl Slicer {
    /// None for windows that are not sliced (SESSION, attached).
    pub fn of(window: &Window) -> Option<Slicer> {
        match *window {
            Window::Tumble { size_ms, offset_ms } => {
                Some(Slicer { slice: size_ms, step: size_ms, size: size_ms, offset: offset_ms, cumulate: false })
            }
            Window::Hop { size_ms, slide_ms, offset_ms } => Some(Slicer {
                slice: gcd(size_ms, slide_ms),
                step: slide_ms,
                size: size_ms,
                offset: offset_ms,
                cumulate: false,
            }),
            Window::Cumulate { max_ms, step_ms, offset_ms } => {
                Some(Slicer { slice: step_ms, step: step_ms, size: max_ms, offset: offset_ms, cumulate: true })
            }
            Window::Session { .. } | Window::Attached { .. } => None,
        }
    }

    fn floor(&self, time: i64, unit: i64) -> i64 {
        let since = time.saturating_sub(self.offset);
        since.saturating_sub(since.rem_euclid(unit)).saturating_add(self.offset)
    }

    /// End of the slice of `time`.
    pub fn slice_end(&self, time: i64) -> i64 {
        self.floor(time, self.slice).saturating_add(self.slice)
    }

    /// Start of the slice that ends at `end`.
    pub fn slice_start(&self, end: i64) -> i64 {
        end.saturating_sub(self.slice)
    }

    /// End of the last window that contains the slice; None when it lies between two windows (slide > size).
    pub fn last_window_end(&self, slice_end: i64) -> Option<i64> {
        let unit = if self.cumulate { self.size } else { self.step };
        let end = self.floor(slice_end.saturating_sub(self.slice), unit).saturating_add(self.size);
        (end >= slice_end).then_some(end)
    }

    /// End of the first window with the slice in it that ends after `fired` has passed (end - 1 > fired).
    pub fn next_window_end(&self, slice_end: i64, fired: i64) -> i64 {
        // Ends lie on step + (offset + size) mod step; for CUMULATE, size is a multiple of step.
        let at_least = slice_end.max(fired.saturating_add(2));
        let phase = self.offset.saturating_add(self.size);
        let since = at_least.saturating_sub(phase);
        at_least.saturating_add((self.step - since.rem_euclid(self.step)) % self.step)
    }

    /// Start of the window that ends at `end`.
    pub fn window_start(&self, end: i64) -> i64 {
        if self.cumulate { self.floor(end - 1, self.size) } else { end - self.size }
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The windows of a row by definition.
    fn windows_of(window: &Window, time: i64) -> Vec<(i64, i64)> {
        let mut all = Vec::new();
        match *window {
            Window::Tumble { size_ms, offset_ms } => {
                all.extend((-200..200).map(|k| (k * size_ms + offset_ms, (k + 1) * size_ms + offset_ms)));
            }
            Window::Hop { size_ms, slide_ms, offset_ms } => {
                all.extend((-500..500).map(|k| (k * slide_ms + offset_ms, k * slide_ms + offset_ms + size_ms)));
            }
            Window::Cumulate { max_ms, step_ms, offset_ms } => {
                for k in -200..200 {
                    let start = k * max_ms + offset_ms;
                    all.extend((1..=max_ms / step_ms).map(|i| (start, start + i * step_ms)));
                }
            }
            _ => {}
        }
        all.retain(|(start, end)| (*start..*end).contains(&time));
        all.sort_by_key(|(_, end)| *end);
        all
    }

    #[test]
    fn slices_reach_exactly_the_windows_of_their_rows() {
        let windows = [
            Window::Tumble { size_ms: 10, offset_ms: 3 },
            Window::Hop { size_ms: 12, slide_ms: 5, offset_ms: 0 },
            Window::Hop { size_ms: 10, slide_ms: 5, offset_ms: -2 },
            Window::Hop { size_ms: 4, slide_ms: 10, offset_ms: 1 },
            Window::Cumulate { max_ms: 20, step_ms: 5, offset_ms: 7 },
        ];
        for window in windows {
            let slicer = Slicer::of(&window).unwrap();
            for time in -100..100 {
                let expected = windows_of(&window, time);
                let slice = slicer.slice_end(time);
                assert!(slicer.slice_start(slice) <= time && time < slice);
                let mut found = Vec::new();
                if let Some(last) = slicer.last_window_end(slice) {
                    let mut end = slicer.next_window_end(slice, i64::MIN);
                    while end <= last {
                        found.push((slicer.window_start(end), end));
                        end = slicer.next_window_end(slice, end - 1);
                    }
                }
                assert_eq!(found, expected, "{window:?} at {time}");
            }
        }
    }
}
