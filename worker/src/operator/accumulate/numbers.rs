//! The accumulators of fixed width: counts, sums and means, variances, extremes of values that fit a word. One cell
//! a group, so that a row touches one cache line; each rule is a few lines on a cell.

use super::lane::{Lane, take};
use crate::error::{Error, Result};

/// What one group of a fixed-width accumulator knows. `T` is an argument's value.
pub trait Cell<T>: Copy + Default + Send {
    fn add(&mut self, value: T) -> Result<()>;
    fn retract(&mut self, value: T) -> Result<()>;
}

/// The parts of a cell that do not depend on the argument's type.
pub trait State: Clone + Default + Send {
    /// Takes in what another cell knows about other rows.
    fn merge(&mut self, other: &Self) -> Result<()>;
    fn put(&self, out: &mut Vec<u8>);
    fn get(input: &mut &[u8]) -> Result<Self>;
    /// Bytes beyond the cell itself.
    fn heap_bytes(&self) -> usize {
        0
    }
    /// The latest arrival it remembers; 0 where arrival does not matter.
    fn sequence(&self) -> u64 {
        0
    }
}

/// Sum of integers (wrapping, as Flink's) and how many; also of doubles and decimals.
#[derive(Clone, Copy, Default)]
pub struct Sum<S> {
    pub sum: S,
    pub n: i64,
}

macro_rules! sum_cell {
    ($ty:ty, |$a:ident, $b:ident| $add:expr, $sub:expr) => {
        impl Cell<$ty> for Sum<$ty> {
            #[inline(always)]
            fn add(&mut self, $b: $ty) -> Result<()> {
                let $a = self.sum;
                self.sum = $add;
                self.n += 1;
                Ok(())
            }

            #[inline(always)]
            fn retract(&mut self, $b: $ty) -> Result<()> {
                let $a = self.sum;
                self.sum = $sub;
                self.n -= 1;
                Ok(())
            }
        }

        impl State for Sum<$ty> {
            #[inline(always)]
            fn merge(&mut self, other: &Self) -> Result<()> {
                let ($a, $b) = (self.sum, other.sum);
                self.sum = $add;
                self.n += other.n;
                Ok(())
            }

            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.sum.to_le_bytes());
                out.extend_from_slice(&self.n.to_le_bytes());
            }

            fn get(input: &mut &[u8]) -> Result<Self> {
                Ok(Sum { sum: <$ty>::from_le_bytes(take(input)?), n: i64::from_le_bytes(take(input)?) })
            }
        }
    };
}

sum_cell!(i64, |a, b| a.wrapping_add(b), a.wrapping_sub(b));
sum_cell!(f64, |a, b| a + b, a - b);
sum_cell!(i128, |a, b| a.checked_add(b).ok_or_else(too_large)?, a.checked_sub(b).ok_or_else(too_large)?);

#[cold]
pub fn too_large() -> Error {
    Error::invalid("a sum of decimals has more than 38 digits: cast the argument to DOUBLE or to a smaller scale")
}

/// COUNT.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub n: i64,
}

impl State for Count {
    #[inline(always)]
    fn merge(&mut self, other: &Self) -> Result<()> {
        self.n += other.n;
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.n.to_le_bytes());
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        Ok(Count { n: i64::from_le_bytes(take(input)?) })
    }
}

/// Count, mean, sum of squared distances from the mean: Welford's update, Chan's merge.
#[derive(Clone, Copy, Default)]
pub struct Moments {
    pub n: i64,
    pub mean: f64,
    pub m2: f64,
}

impl Cell<f64> for Moments {
    #[inline(always)]
    fn add(&mut self, value: f64) -> Result<()> {
        self.n += 1;
        let delta = value - self.mean;
        self.mean += delta / self.n as f64;
        self.m2 += delta * (value - self.mean);
        Ok(())
    }

    fn retract(&mut self, _value: f64) -> Result<()> {
        unreachable!("variances over a changelog are sums of powers")
    }
}

impl State for Moments {
    #[inline(always)]
    fn merge(&mut self, other: &Self) -> Result<()> {
        if other.n == 0 {
            return Ok(());
        }
        if self.n == 0 {
            *self = *other;
            return Ok(());
        }
        let (a, b) = (self.n as f64, other.n as f64);
        let delta = other.mean - self.mean;
        let n = a + b;
        self.mean += delta * (b / n);
        self.m2 += other.m2 + delta * delta * (a * b / n);
        self.n += other.n;
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.n.to_le_bytes());
        out.extend_from_slice(&self.mean.to_le_bytes());
        out.extend_from_slice(&self.m2.to_le_bytes());
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        Ok(Moments {
            n: i64::from_le_bytes(take(input)?),
            mean: f64::from_le_bytes(take(input)?),
            m2: f64::from_le_bytes(take(input)?),
        })
    }
}

/// A double in two parts, exact to about 32 digits: sums of squares may be taken back without a trace.
#[derive(Clone, Copy, Default)]
struct Twin(f64, f64);

impl Twin {
    fn of_sum(a: f64, b: f64) -> Twin {
        let sum = a + b;
        let part = sum - a;
        Twin(sum, (a - (sum - part)) + (b - part))
    }

    fn of_product(a: f64, b: f64) -> Twin {
        let product = a * b;
        Twin(product, a.mul_add(b, -product))
    }

    fn plus(self, other: Twin) -> Twin {
        let high = Twin::of_sum(self.0, other.0);
        let low = Twin::of_sum(self.1, other.1);
        let sum = Twin::of_sum(high.0, high.1 + low.0);
        Twin::of_sum(sum.0, sum.1 + low.1)
    }

    fn minus(self, other: Twin) -> Twin {
        self.plus(Twin(-other.0, -other.1))
    }

    fn square(self) -> Twin {
        let high = Twin::of_product(self.0, self.0);
        Twin::of_sum(high.0, high.1 + 2.0 * self.0 * self.1)
    }

    fn over(self, n: f64) -> Twin {
        let first = self.0 / n;
        let rest = self.minus(Twin::of_product(first, n));
        Twin::of_sum(first, (rest.0 + rest.1) / n)
    }
}

/// Count, sum and sum of squares of values that may be retracted. Welford's update taken back leaves rounding errors
/// of the values that went; these sums do not.
#[derive(Clone, Copy, Default)]
pub struct Powers {
    n: i64,
    sum: Twin,
    squares: Twin,
}

impl Powers {
    pub fn moments(&self) -> Moments {
        if self.n <= 0 {
            return Moments { n: self.n, ..Moments::default() };
        }
        let n = self.n as f64;
        let m2 = self.squares.minus(self.sum.square().over(n));
        Moments { n: self.n, mean: self.sum.0 / n, m2: m2.0 }
    }
}

impl Cell<f64> for Powers {
    fn add(&mut self, value: f64) -> Result<()> {
        self.n += 1;
        self.sum = self.sum.plus(Twin(value, 0.0));
        self.squares = self.squares.plus(Twin::of_product(value, value));
        Ok(())
    }

    fn retract(&mut self, value: f64) -> Result<()> {
        self.n -= 1;
        self.sum = self.sum.minus(Twin(value, 0.0));
        self.squares = self.squares.minus(Twin::of_product(value, value));
        Ok(())
    }
}

impl State for Powers {
    fn merge(&mut self, other: &Self) -> Result<()> {
        self.n += other.n;
        self.sum = self.sum.plus(other.sum);
        self.squares = self.squares.plus(other.squares);
        Ok(())
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.n.to_le_bytes());
        for part in [self.sum.0, self.sum.1, self.squares.0, self.squares.1] {
            out.extend_from_slice(&part.to_le_bytes());
        }
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        let n = i64::from_le_bytes(take(input)?);
        let mut part = || take(input).map(f64::from_le_bytes);
        Ok(Powers { n, sum: Twin(part()?, part()?), squares: Twin(part()?, part()?) })
    }
}

/// MIN or MAX of values that fit a word.
#[derive(Clone, Copy, Default)]
pub struct Extreme<T, const MAX: bool> {
    pub value: T,
    pub some: bool,
}

impl<T: Copy + Ord + Default + Send, const MAX: bool> Cell<T> for Extreme<T, MAX> {
    #[inline(always)]
    fn add(&mut self, value: T) -> Result<()> {
        if !self.some || (if MAX { value > self.value } else { value < self.value }) {
            *self = Extreme { value, some: true };
        }
        Ok(())
    }

    fn retract(&mut self, _value: T) -> Result<()> {
        unreachable!("MIN and MAX over a changelog keep all their values")
    }
}

impl<T: Lane + Copy, const MAX: bool> State for Extreme<T, MAX> {
    #[inline(always)]
    fn merge(&mut self, other: &Self) -> Result<()> {
        if other.some { self.add(other.value) } else { Ok(()) }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.some));
        self.value.put(out);
    }

    fn get(input: &mut &[u8]) -> Result<Self> {
        let [some] = take(input)?;
        Ok(Extreme { some: some != 0, value: T::get(input)? })
    }
}
