//! Drives one engine through one row. Compiled once for each engine: no call in a measured loop
//! goes through a table.

use base::Result;
use base::clock::SystemClock;
use base::sync::Arc;
use base::sync::atomic::{AtomicUsize, Ordering};

use super::plan::{Row, Work};
use crate::bench::data::{KeyMaker, Shuffle, ValueMaker};
use crate::bench::engine::{Direction, Engine, Entries, Session};
use crate::bench::measure::{Meter, Outcome};
use crate::interrupt::Stop;
use crate::random::Random;

/// What keys and values look like, and where the random numbers start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Keys are numbers below this.
    pub(crate) num: u64,
    pub(crate) key_bytes: usize,
    pub(crate) value_bytes: usize,
    pub(crate) ratio: f64,
    pub(crate) seed: u64,
}

/// What all threads of a row share.
pub(crate) struct Course<'a> {
    pub(crate) row: &'a Row,
    pub(crate) shape: Shape,
    pub(crate) stop: &'a Stop,
    pub(crate) clock: &'a Arc<SystemClock>,
}

/// What came of a row.
pub(crate) struct Driven {
    pub(crate) outcome: Outcome,
    /// Writes a second of the thread beside the readers, if there was one.
    pub(crate) beside_per_sec: Option<f64>,
}

/// Runs a row that is done by calls of the engine.
///
/// # Errors
/// The first error of any thread.
pub(crate) fn run<E: Engine>(engine: &E, course: &Course<'_>) -> Result<Driven> {
    let is_mixed = course.row.work == Work::ReadWhileWriting;
    let readers = course.row.threads;
    let readers_left = AtomicUsize::new(readers);
    let threads = readers + usize::from(is_mixed);
    let ready = std::sync::Barrier::new(threads);
    let one = &|index: usize| -> Result<Meter> {
        let mut driver = Driver::new(course, index as u64);
        // Who has none comes to the start as well: the others wait for everybody.
        let session = engine.session();
        ready.wait();
        driver.meter.start();
        if is_mixed && index == readers {
            overwrite_until(&mut session?, &mut driver, &readers_left)?;
        } else {
            let result = session
                .and_then(|mut session| work(course, index, engine, &mut session, &mut driver));
            readers_left.fetch_sub(1, Ordering::Relaxed);
            result?;
        }
        driver.meter.stop();
        Ok(driver.meter)
    };
    let results: Vec<Result<Meter>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads)
            .map(|index| scope.spawn(move || one(index)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Meter>>| {
            thread
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))
        };
        threads.into_iter().map(join).collect()
    });
    let mut meters: Vec<Meter> = results.into_iter().collect::<Result<_>>()?;
    let writer = if is_mixed { meters.pop() } else { None };
    Ok(Driven {
        outcome: Outcome::merge(&meters),
        beside_per_sec: writer.map(|meter| {
            let outcome = Outcome::merge(&[meter]);
            crate::bench::line::as_f64(outcome.done) / outcome.elapsed_seconds.max(1e-9)
        }),
    })
}

/// One thread: its own random numbers, keys, values and measurements.
struct Driver<'a> {
    random: Random,
    keys: KeyMaker,
    values: ValueMaker,
    meter: Meter,
    stop: &'a Stop,
    num: u64,
}

impl<'a> Driver<'a> {
    fn new(course: &Course<'a>, index: u64) -> Self {
        let Shape { seed, .. } = course.shape;
        let ordinal = course.row.ordinal;
        let mut pool_random = Random::stream(seed, &[ordinal, index, 1]);
        // A missing key is one byte longer than one that was written, and sorts just after it.
        let longer = usize::from(course.row.work == Work::ReadMissing);
        Self {
            random: Random::stream(seed, &[ordinal, index]),
            keys: KeyMaker::new(course.shape.key_bytes + longer),
            values: ValueMaker::new(
                &mut pool_random,
                course.shape.value_bytes,
                course.shape.ratio,
            ),
            meter: Meter::new(Arc::clone(course.clock)),
            stop: course.stop,
            num: course.shape.num,
        }
    }

    #[inline]
    fn should_stop(&mut self) -> bool {
        if !self.stop.is_set() {
            return false;
        }
        self.meter.is_cut_short = true;
        true
    }

    #[inline]
    fn finish(&mut self, count: u64, bytes: usize) {
        self.meter.bytes += bytes as u64;
        self.meter.finish(count);
    }
}

fn work<E: Engine>(
    course: &Course<'_>,
    index: usize,
    engine: &E,
    session: &mut E::Session<'_>,
    driver: &mut Driver<'_>,
) -> Result<()> {
    let row = course.row;
    match row.work {
        Work::FillSeq | Work::FillRandom | Work::FillUnique => {
            let numbers = Numbers::new(course, index as u64);
            if row.batch == 1 {
                fill(session, driver, row.count, numbers)
            } else {
                fill_batches(session, driver, course, numbers)
            }
        }
        Work::ReadRandom | Work::ReadMissing | Work::ReadWhileWriting => {
            read(session, driver, row.count)
        }
        Work::SeekRandom => seek(session, driver, row, false),
        Work::ReseekRandom => seek(session, driver, row, true),
        Work::ReadSeq => scan(session, driver, row.count, Direction::Forward),
        Work::ReadReverse => scan(session, driver, row.count, Direction::Backward),
        Work::Compact => {
            engine.compact()?;
            driver.finish(1, 0);
            Ok(())
        }
        Work::Settle => Ok(()),
    }
}

/// Which keys a fill writes.
enum Numbers {
    /// From the first on, in steps of the number of threads.
    Sequence {
        next: u64,
        step: u64,
        num: u64,
    },
    Random,
    /// As `Sequence`, each put in another place.
    Unique {
        next: u64,
        step: u64,
        shuffle: Shuffle,
    },
}

impl Numbers {
    fn new(course: &Course<'_>, index: u64) -> Self {
        let step = course.row.threads as u64;
        match course.row.work {
            Work::FillSeq => Self::Sequence {
                next: index,
                step,
                num: course.shape.num,
            },
            Work::FillUnique => Self::Unique {
                next: index,
                step,
                shuffle: Shuffle::new(course.shape.num, course.shape.seed),
            },
            _ => Self::Random,
        }
    }

    #[inline]
    fn next(&mut self, driver: &mut Driver<'_>) -> u64 {
        match self {
            Self::Random => driver.random.below(driver.num),
            Self::Sequence { next, step, num } => {
                let number = *next % *num;
                *next += *step;
                number
            }
            Self::Unique {
                next,
                step,
                shuffle,
            } => {
                let number = shuffle.place(*next % driver.num);
                *next += *step;
                number
            }
        }
    }
}

fn fill(
    session: &mut impl Session,
    driver: &mut Driver<'_>,
    count: u64,
    mut numbers: Numbers,
) -> Result<()> {
    for _ in 0..count {
        if driver.should_stop() {
            break;
        }
        let number = numbers.next(driver);
        put(session, driver, number)?;
    }
    Ok(())
}

#[inline]
fn put(session: &mut impl Session, driver: &mut Driver<'_>, number: u64) -> Result<()> {
    let key = driver.keys.key(number);
    let value = driver.values.next_value();
    let bytes = key.len() + value.len();
    session.put(key, value)?;
    driver.finish(1, bytes);
    Ok(())
}

fn fill_batches(
    session: &mut impl Session,
    driver: &mut Driver<'_>,
    course: &Course<'_>,
    mut numbers: Numbers,
) -> Result<()> {
    let (key_bytes, value_bytes) = (course.shape.key_bytes, course.shape.value_bytes);
    let mut entries = Entries::new(key_bytes, value_bytes);
    let mut left = course.row.count;
    while left > 0 && !driver.should_stop() {
        entries.clear();
        let count = course.row.batch.min(left);
        for _ in 0..count {
            let number = numbers.next(driver);
            entries.push(driver.keys.key(number), driver.values.next_value());
        }
        session.put_batch(&entries)?;
        let bytes = (key_bytes + value_bytes) * usize::try_from(count).unwrap_or(usize::MAX);
        driver.finish(count, bytes);
        left -= count;
    }
    Ok(())
}

/// Writes random keys until the last reader is done.
fn overwrite_until(
    session: &mut impl Session,
    driver: &mut Driver<'_>,
    readers_left: &AtomicUsize,
) -> Result<()> {
    while readers_left.load(Ordering::Relaxed) > 0 && !driver.should_stop() {
        let number = driver.random.below(driver.num);
        put(session, driver, number)?;
    }
    Ok(())
}

/// Whoever gets a value looks at it: at its end, so that lazily read pages are read.
#[inline]
fn look_at(bytes: &[u8]) {
    std::hint::black_box(bytes.last().copied());
}

fn read(session: &mut impl Session, driver: &mut Driver<'_>, count: u64) -> Result<()> {
    let mut found = 0;
    let mut asked = 0;
    for _ in 0..count {
        if driver.should_stop() {
            break;
        }
        let number = driver.random.below(driver.num);
        let key = driver.keys.key(number);
        let mut bytes = 0;
        let is_found = session.get(key, |value| {
            look_at(value);
            bytes = key.len() + value.len();
        })?;
        found += u64::from(is_found);
        asked += 1;
        driver.finish(1, bytes);
    }
    driver.meter.add_found(found, asked);
    Ok(())
}

fn seek(
    session: &mut impl Session,
    driver: &mut Driver<'_>,
    row: &Row,
    is_reseek: bool,
) -> Result<()> {
    let mut found = 0;
    let mut asked = 0;
    for _ in 0..row.count {
        if driver.should_stop() {
            break;
        }
        let number = driver.random.below(driver.num);
        let wanted = driver.keys.key(number);
        let (mut bytes, mut seen) = (0, 0);
        let with = |key: &[u8], value: &[u8]| {
            if seen == 0 {
                found += u64::from(key == wanted);
            }
            look_at(value);
            bytes += key.len() + value.len();
            seen += 1;
            seen <= row.nexts
        };
        if is_reseek {
            session.reseek(wanted, with)?;
        } else {
            session.seek(wanted, with)?;
        }
        asked += 1;
        driver.finish(1, bytes);
    }
    driver.meter.add_found(found, asked);
    Ok(())
}

fn scan(
    session: &mut impl Session,
    driver: &mut Driver<'_>,
    count: u64,
    direction: Direction,
) -> Result<()> {
    let mut left = count;
    session.scan(direction, |key, value| {
        look_at(value);
        driver.meter.finish_step((key.len() + value.len()) as u64);
        left -= 1;
        left > 0 && !driver.should_stop()
    })
}
