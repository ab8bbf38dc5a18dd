//! Runs on all cores.

use std::num::NonZero;
use std::sync::Mutex;

/// What `work` makes of each of `inputs`, in their order.
pub(crate) fn in_parallel<I: Send, O: Send>(inputs: Vec<I>, work: impl Fn(I) -> O + Sync) -> Vec<O> {
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    let queue = Mutex::new(inputs.into_iter().enumerate());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().expect("nobody fails while taking one").next();
                    let Some((number, input)) = next else { return };
                    let output = work(input);
                    done.lock().expect("nobody fails while adding one").push((number, output));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("all have ended well");
    done.sort_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, output)| output).collect()
}
