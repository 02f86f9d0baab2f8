//! The loop that follows a trace to its end.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use super::{
    super::{
        args::{OutputArgs, TraceArgs},
        failure::Failure,
        jstack::{self, SavedNames},
        outputs::{colors, to_stderr},
    },
    inputs::{Input, Inputs, asks},
    session::Session,
};
use crate::{
    report::{progress, text_by},
    target,
    trace::{Recording, Why},
};

/// Together a little more than the window that puts events in order.
const CATCH_UP_TURN: Duration = Duration::from_millis(30);
const CATCH_UP_TURNS: u32 = 4;

/// Follows the trace until it ends, and returns what it says and why it ended.
pub(super) async fn follow(
    mut session: Session,
    mut inputs: Inputs,
    args: &TraceArgs,
    names: SavedNames,
) -> (Recording, Why) {
    let mut jstack_failure = None;
    let why = loop {
        match inputs.next().await {
            Input::Events => {
                session.drain(inputs.ring());
            }
            Input::Second => {
                session.drain(inputs.ring());
                session.tick(inputs.ring());
                show_progress(&session, args);
            }
            Input::Asked => break Why::Asked,
            Input::TimeOver => break Why::Duration,
            Input::Report => {
                catch_up(&mut session, &mut inputs).await;
                session.look_at_footprint();
                show_report(&session, args);
            }
            Input::Named(Ok(names)) => {
                jstack_failure = None;
                session.name_threads(names);
            }
            Input::Named(Err(failure)) => jstack_failure = Some(failure),
        }
        if let Some(error) = session.take_file_error() {
            tell_file_error(&error);
            break Why::OutputFailed;
        }
        if session.is_over() {
            break Why::TargetEnded;
        }
    };
    clear_progress(args);
    // A JVM may take its time to answer, and nobody reads the ring buffer meanwhile.
    session.detach(inputs.ring());
    let _alone = inputs.ask_no_more().await;
    name_at_the_end(&mut session, args, names, jstack_failure);
    let captured = session.end_capture();
    match session.finish(why, None) {
        (recording, None) => match captured {
            Ok(()) => (recording, why),
            Err(error) => {
                to_stderr(&format!("memtrace: {error:#}\n"));
                (recording, Why::OutputFailed)
            }
        },
        (recording, Some(error)) => {
            tell_file_error(&error);
            (recording, Why::OutputFailed)
        }
    }
}

fn tell_file_error(error: &io::Error) {
    to_stderr(&format!("memtrace: failed to write the trace file: {error}; the trace ends here\n"));
}

/// Reads what happened up to now, and waits until it has left the window that orders it.
async fn catch_up(session: &mut Session, inputs: &mut Inputs) {
    for _ in 0..CATCH_UP_TURNS {
        tokio::time::sleep(CATCH_UP_TURN).await;
        session.drain(inputs.ring());
    }
}

/// The last chance to learn names: from a JVM that still runs, or from what the user brought.
fn name_at_the_end(
    session: &mut Session,
    args: &TraceArgs,
    names: SavedNames,
    failure: Option<Failure>,
) {
    let mut failure = failure;
    let root = session.root();
    if asks(args.outputs.jstack.as_deref()) && target::is_alive(root) {
        match jstack::ask(root) {
            Ok(names) => {
                failure = None;
                session.name_threads(names);
            }
            Err(error) => failure = Some(error),
        }
    }
    if let Some(failure) = failure {
        session.note(format!("thread names are not from a thread dump: {failure}"));
    }
    session.name_threads_at_the_end(names);
}

fn shows_progress(args: &TraceArgs) -> bool {
    !args.outputs.quiet && io::stderr().is_terminal()
}

fn show_progress(session: &Session, args: &TraceArgs) {
    if shows_progress(args) {
        to_stderr(&format!("\r{}\x1b[K", progress(session.recording(), terminal_width())));
    }
}

fn show_report(session: &Session, args: &TraceArgs) {
    clear_progress(args);
    let OutputArgs { metric, color, .. } = args.outputs;
    to_stderr(&text_by(session.recording(), metric, colors(color, &io::stderr())));
}

fn clear_progress(args: &TraceArgs) {
    if shows_progress(args) {
        to_stderr("\r\x1b[K");
    }
}

fn terminal_width() -> usize {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `size` is written by the call.
    let result = unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 && size.ws_col > 20 { usize::from(size.ws_col) } else { 80 }
}
