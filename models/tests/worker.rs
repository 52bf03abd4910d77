//! The model's thread: order, fairness, cancelling, limits, panics, and reuse of what was computed.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tether_models::testing::{TinyArchitecture, TinyModel};
use tether_models::{
    Cancel, Engine, Event, Finish, GenerateOptions, Generated, Job, LoadOptions, ModelError, SamplingOptions, Worker,
    WorkerOptions,
};

fn engine() -> Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    let load = || {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tiny.gguf");
        TinyModel::new(TinyArchitecture::Llama).write(&path).unwrap();
        Arc::new(Engine::load(&path, &LoadOptions::default()).unwrap())
    };
    ENGINE.get_or_init(load).clone()
}

fn worker(queue_limit: usize) -> Worker {
    Worker::start(engine(), WorkerOptions { queue_limit, ..WorkerOptions::default() }).unwrap()
}

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions { sampling: SamplingOptions::default(), max_tokens, stop: Vec::new() }
}

fn job(client: u64, prompt: &[u32], max_tokens: usize, events: Sender<Event>) -> Job {
    Job {
        client,
        session: None,
        prompt: prompt.to_vec(),
        options: options(max_tokens),
        cancel: Cancel::default(),
        sink: Box::new(move |event| events.send(event).unwrap_or_default()),
    }
}

fn run(worker: &Worker, prompt: &[u32], max_tokens: usize) -> (String, Generated) {
    let (sender, events) = mpsc::channel();
    worker.submit(job(1, prompt, max_tokens, sender)).unwrap();
    answer(&events)
}

fn answer(events: &Receiver<Event>) -> (String, Generated) {
    let mut text = String::new();
    for event in events {
        match event {
            Event::Started => {}
            Event::Text(more) => text.push_str(&more),
            Event::Done(generated) => return (text, generated),
            other => panic!("{other:?}"),
        }
    }
    panic!("the events ended without an end")
}

/// A job that holds the model until the returned sender is dropped, and the receiver that tells when it runs.
fn blocker(worker: &Worker) -> (Sender<()>, Receiver<()>) {
    let (release, released) = mpsc::channel::<()>();
    let (started, running) = mpsc::channel();
    let sink = move |event| {
        if matches!(event, Event::Started) {
            started.send(()).unwrap_or_default();
            released.recv().unwrap_or_default();
        }
    };
    let (unused, _) = mpsc::channel();
    worker.submit(Job { sink: Box::new(sink), ..job(0, &[1, 2, 3], 1, unused) }).unwrap();
    (release, running)
}

#[test]
fn a_thread_that_hangs_is_told_from_one_that_idles_or_works() {
    let worker = worker(8);
    assert_eq!(worker.stalled_for(), None);
    let (release, running) = blocker(&worker);
    running.recv().unwrap();
    // Grows without end while the job hangs; this loop would not end otherwise.
    while worker.stalled_for().unwrap() < Duration::from_millis(50) {
        std::thread::yield_now();
    }
    drop(release);
    run(&worker, &[1, 2, 3], 4);
    assert_eq!(worker.stalled_for(), None);
}

#[test]
fn an_answer_is_the_same_each_time_and_reuses_the_prompt() {
    let worker = worker(8);
    let prompt: Vec<u32> = (10..60).collect();
    let (text, first) = run(&worker, &prompt, 20);
    assert!(!text.is_empty());
    assert_eq!((first.prompt_tokens, first.cached_tokens, first.completion_tokens), (50, 0, 20));
    assert_eq!(first.finish, Finish::Length);
    let (again, second) = run(&worker, &prompt, 20);
    assert_eq!((again, second.cached_tokens), (text, 49));
    let longer = [&prompt[..40], &[7, 7, 7]].concat();
    assert_eq!(run(&worker, &longer, 5).1.cached_tokens, 40);
    let stats = worker.stats();
    assert!(stats.queue == 0 && stats.prefill_tokens_per_s.is_some() && stats.decode_tokens_per_s.is_some());
}

#[test]
fn a_stop_string_ends_the_answer_before_it() {
    let worker = worker(8);
    let (text, _) = run(&worker, &[10, 11, 12], 40);
    let stop: String = text.chars().skip(10).take(3).collect();
    let (sender, events) = mpsc::channel();
    let stopping = GenerateOptions { stop: vec![stop.clone()], ..options(40) };
    worker.submit(Job { options: stopping, ..job(1, &[10, 11, 12], 40, sender) }).unwrap();
    let (cut, generated) = answer(&events);
    assert_eq!(generated.finish, Finish::Stop);
    assert_eq!(cut, text[..text.find(&stop).unwrap()]);
}

#[test]
fn clients_take_turns() {
    let worker = worker(8);
    let (release, running) = blocker(&worker);
    running.recv().unwrap();
    let (sender, order) = mpsc::channel();
    for (client, name) in [(1, "a1"), (1, "a2"), (1, "a3"), (2, "b1"), (3, "c1"), (2, "b2")] {
        let (sender, (unused, _)) = (sender.clone(), mpsc::channel());
        let sink = move |event| {
            if matches!(event, Event::Started) {
                sender.send(name).unwrap()
            }
        };
        worker.submit(Job { sink: Box::new(sink), ..job(client, &[1, 2], 1, unused) }).unwrap();
    }
    drop((release, sender));
    assert_eq!(order.iter().collect::<Vec<_>>(), ["a1", "b1", "c1", "a2", "b2", "a3"]);
}

#[test]
fn the_queue_holds_exactly_its_limit_and_cancelled_jobs_make_room() {
    let worker = worker(2);
    let (release, running) = blocker(&worker);
    running.recv().unwrap();
    let (sender, events) = mpsc::channel();
    let first = job(1, &[1, 2], 1, sender.clone());
    let cancel = first.cancel.clone();
    worker.submit(first).unwrap();
    worker.submit(job(2, &[1, 2], 1, sender.clone())).unwrap();
    assert_eq!(worker.stats().queue, 3);
    let full = worker.submit(job(3, &[1, 2], 1, sender.clone())).unwrap_err();
    assert!(matches!(full, ModelError::QueueFull(2)), "{full}");
    cancel.cancel();
    worker.submit(job(3, &[1, 2], 1, sender)).unwrap();
    assert!(matches!(events.recv().unwrap(), Event::Cancelled));
    drop(release);
}

/// Runs a job that cancels itself at its `at`-th event, and returns the events that came.
fn cancelled_at(worker: &Worker, prompt: &[u32], at: usize) -> Vec<Event> {
    let (sender, events) = mpsc::channel();
    let (cancel, mut sent) = (Cancel::default(), 0);
    let in_sink = cancel.clone();
    let sink = move |event| {
        sent += 1;
        if sent == at {
            in_sink.cancel();
        }
        sender.send(event).unwrap_or_default();
    };
    let (unused, _) = mpsc::channel();
    worker.submit(Job { sink: Box::new(sink), cancel, ..job(1, prompt, 400, unused) }).unwrap();
    events.iter().collect()
}

#[test]
fn a_job_cancelled_in_its_prompt_computes_no_more_of_it() {
    let worker = worker(8);
    let prompt: Vec<u32> = (0..1500).map(|i| i % 200).collect();
    let events = cancelled_at(&worker, &prompt, 1);
    assert!(matches!(events[..], [Event::Started, Event::Cancelled]), "{events:?}");
    // It was cancelled before the first chunk, so at most that one may have been computed.
    assert!(run(&worker, &prompt, 1).1.cached_tokens <= tether_models::generate::PREFILL_CHUNK_TOKENS);
}

#[test]
fn a_job_cancelled_while_it_decodes_gives_no_further_token() {
    let events = cancelled_at(&worker(8), &[3, 4], 4);
    assert_eq!(events.len(), 5, "{events:?}");
    assert!(matches!(events[4], Event::Cancelled), "{events:?}");
}

#[test]
fn a_job_cancelled_while_it_waits_never_starts() {
    let worker = worker(8);
    let (release, running) = blocker(&worker);
    running.recv().unwrap();
    let (sender, events) = mpsc::channel();
    let waiting = job(1, &[1, 2], 1, sender);
    waiting.cancel.cancel();
    worker.submit(waiting).unwrap();
    drop(release);
    let events: Vec<Event> = events.iter().collect();
    assert!(matches!(events[..], [Event::Cancelled]), "{events:?}");
}

#[test]
fn a_panic_ends_one_job_and_the_model_goes_on() {
    let worker = worker(8);
    let (before, _) = run(&worker, &[5, 6, 7], 10);
    let (sender, events) = mpsc::channel();
    let sink = move |event| match event {
        Event::Text(_) => panic!("the sink of this test"),
        event => sender.send(event).unwrap(),
    };
    let (unused, _) = mpsc::channel();
    worker.submit(Job { sink: Box::new(sink), ..job(1, &[5, 6, 7], 10, unused) }).unwrap();
    let events: Vec<Event> = events.iter().collect();
    let [Event::Started, Event::Failed(error)] = &events[..] else { panic!("{events:?}") };
    assert!(error.to_string().contains("the sink of this test"), "{error}");
    assert_eq!(run(&worker, &[5, 6, 7], 10).0, before);
}

#[test]
fn prompts_that_cannot_run_fail_by_name() {
    let worker = worker(8);
    for (prompt, wanted) in [(vec![], "prompt"), (vec![1; 2048], "context"), (vec![9999], "tokens")] {
        let (sender, events) = mpsc::channel();
        worker.submit(job(1, &prompt, 5, sender)).unwrap();
        let last = events.iter().last().unwrap();
        let Event::Failed(error) = last else { panic!("{last:?}") };
        assert!(error.to_string().contains(wanted), "{error}");
    }
    // The longest prompt that leaves room for a token gives one.
    assert_eq!(run(&worker, &[1; 2047], 5).1.completion_tokens, 1);
}

#[test]
fn dropping_the_worker_ends_what_runs_and_what_waits() {
    let worker = worker(8);
    let (sender, running) = mpsc::channel();
    worker.submit(job(1, &[1, 2], 2000, sender)).unwrap();
    assert!(matches!(running.recv().unwrap(), Event::Started));
    let (sender, waiting) = mpsc::channel();
    worker.submit(job(1, &[1, 2], 2000, sender)).unwrap();
    drop(worker);
    assert!(matches!(running.iter().last().unwrap(), Event::Cancelled));
    let events: Vec<Event> = waiting.iter().collect();
    assert!(matches!(events[..], [Event::Failed(ModelError::Stopped(_))]), "{events:?}");
}
