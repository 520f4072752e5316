//! The model of an instance: the built-in one of its engine, or a file of the user.

pub mod folder;

use std::fmt;
use std::mem;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use model_runtime::{Factor, Model};
use nice_plug::params::persist::PersistentField;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

use crate::engines::Engine;

/// A model file, as stored in a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Its path.
    pub path: PathBuf,
    /// SHA-256 of its contents when it was chosen, in hexadecimal.
    pub sha256: String,
}

/// The model in use, and the one being loaded. Files are read on their own thread. The model in use stays until the
/// next one is ready; if loading fails, it stays for good.
#[derive(Default)]
pub struct ModelStore {
    shared: Arc<Shared>,
    /// Joined when the store is dropped, off the audio thread: these threads run code of the plugin, which the host may
    /// unload afterwards.
    loaders: Mutex<Vec<JoinHandle<()>>>,
}

/// State shared by the store and its threads.
#[derive(Default)]
struct Shared {
    inner: Mutex<Inner>,
    /// Signalled when a load ends.
    loaded: Condvar,
    /// Incremented when another model comes into use.
    version: AtomicU64,
}

#[derive(Default)]
struct Inner {
    /// The file stored in the session; none for the built-in model. The file may be missing.
    chosen: Option<ModelFile>,
    /// None for the built-in models.
    loaded: Option<Arc<Model>>,
    /// A message to the user about the last choice.
    note: Option<String>,
    /// Number of the last choice. Results of earlier loads are dropped.
    choice: u64,
    is_loading: bool,
}

impl ModelStore {
    /// Main thread: starts to load a file. On success, it becomes the model in use and is stored in the session.
    pub fn load(&self, path: PathBuf) {
        self.begin(None, move || read(path));
    }

    /// Main thread: starts a search for the session's model file, by contents, in some folders and their subfolders.
    pub fn find(&self, folders: Vec<PathBuf>) {
        if let Some(file) = self.chosen() {
            self.begin(Some(file.clone()), move || search(&file, &folders));
        }
    }

    /// Main thread: goes back to the built-in model.
    pub fn use_built_in(&self) {
        let mut inner = self.shared.inner.lock();
        inner.choice += 1;
        inner.chosen = None;
        inner.note = None;
        inner.is_loading = false;
        self.shared.put_in_use(&mut inner, None);
        self.shared.loaded.notify_all();
    }

    /// Main thread: the model that an engine uses, and its [`Self::version`], after waiting for a load to finish. Returns
    /// an error if the built-in model is damaged.
    pub fn settled(&self, engine: Engine) -> (model_runtime::Result<Arc<Model>>, u64) {
        let mut inner = self.shared.inner.lock();
        while inner.is_loading {
            self.shared.loaded.wait(&mut inner);
        }
        (inner.model_for(engine), self.version())
    }

    /// Editor: the model that an engine uses: the loaded one if it fits the engine, else the built-in one.
    ///
    /// # Errors
    ///
    /// If the built-in model is damaged.
    pub fn in_use(&self, engine: Engine) -> model_runtime::Result<Arc<Model>> {
        self.shared.inner.lock().model_for(engine)
    }

    /// Editor: the engine that the loaded model is for, if it is not this one.
    pub fn is_for_another(&self, engine: Engine) -> Option<Engine> {
        let inner = self.shared.inner.lock();
        let loaded = inner.loaded.as_ref().filter(|model| !engine.fits(model))?;
        Engine::WITH_NETWORK
            .into_iter()
            .find(|other| other.fits(loaded))
    }

    /// Editor: the file stored in the session, if it is not the built-in model.
    pub fn chosen(&self) -> Option<ModelFile> {
        self.shared.inner.lock().chosen.clone()
    }

    /// Editor: a message to the user about the last choice, in particular a failure.
    pub fn note(&self) -> Option<String> {
        self.shared.inner.lock().note.clone()
    }

    /// Editor: whether the loaded model differs from the one stored in the session.
    pub fn is_lost(&self) -> bool {
        let inner = self.shared.inner.lock();
        let loaded = inner.loaded.as_ref().map(|model| model.sha256());
        inner
            .chosen
            .as_ref()
            .is_some_and(|file| Some(file.sha256.as_str()) != loaded)
    }

    /// Editor: whether a file is being loaded.
    pub fn is_loading(&self) -> bool {
        self.shared.inner.lock().is_loading
    }

    /// Any thread, including the audio thread: changes when another model comes into use.
    pub fn version(&self) -> u64 {
        self.shared.version.load(Ordering::Relaxed)
    }

    /// Starts a thread that runs `read`. `remembered` is the choice stored in a session; it stays the session's choice
    /// even if loading fails.
    fn begin(&self, remembered: Option<ModelFile>, read: impl FnOnce() -> Read + Send + 'static) {
        let builder = thread::Builder::new().name("graft-model".to_owned());
        self.begin_on(builder, remembered, read);
    }

    fn begin_on(
        &self,
        builder: thread::Builder,
        remembered: Option<ModelFile>,
        read: impl FnOnce() -> Read + Send + 'static,
    ) {
        let mut inner = self.shared.inner.lock();
        inner.choice += 1;
        inner.note = None;
        inner.is_loading = true;
        let choice = inner.choice;
        if remembered.is_some() {
            inner.chosen.clone_from(&remembered);
        }
        let shared = Arc::clone(&self.shared);
        let mut loaders = self.loaders.lock();
        let all = mem::take(&mut *loaders);
        let (finished, running) = all.into_iter().partition(JoinHandle::is_finished);
        *loaders = running;
        join(finished);
        match builder.spawn(move || shared.end(choice, remembered, read())) {
            Ok(loader) => loaders.push(loader),
            Err(error) => {
                inner.is_loading = false;
                inner.note = Some(format!(
                    "cannot start the thread that loads the model: {error}"
                ));
                self.shared.loaded.notify_all();
            }
        }
    }
}

impl Drop for ModelStore {
    fn drop(&mut self) {
        join(mem::take(self.loaders.get_mut()));
    }
}

fn join(loaders: Vec<JoinHandle<()>>) {
    for loader in loaders {
        // If loading panicked, the model in use stays.
        let _panicked = loader.join();
    }
}

impl Inner {
    fn model_for(&self, engine: Engine) -> model_runtime::Result<Arc<Model>> {
        match &self.loaded {
            Some(model) if engine.fits(model) => Ok(Arc::clone(model)),
            _ => engine.built_in_model(),
        }
    }
}

impl Shared {
    fn end(&self, choice: u64, remembered: Option<ModelFile>, read: Read) {
        let mut inner = self.inner.lock();
        if inner.choice != choice {
            return;
        }
        match read {
            Ok((path, model)) => {
                let sha256 = model.sha256().to_owned();
                let changed = remembered.is_some_and(|file| file.sha256 != sha256);
                inner.note = changed
                    .then(|| format!("{} has changed since the session was saved", path.display()));
                inner.chosen = Some(ModelFile { path, sha256 });
                self.put_in_use(&mut inner, Some(Arc::new(model)));
            }
            Err(why) => inner.note = Some(why),
        }
        inner.is_loading = false;
        self.loaded.notify_all();
    }

    fn put_in_use(&self, inner: &mut Inner, model: Option<Arc<Model>>) {
        let sha256 = |model: &Option<Arc<Model>>| model.as_ref().map(|m| m.sha256().to_owned());
        if sha256(&inner.loaded) != sha256(&model) {
            inner.loaded = model;
            self.version.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A model and its path, or an error message.
type Read = Result<(PathBuf, Model), String>;

fn read(path: PathBuf) -> Read {
    load(&path).map(|model| (path, model))
}

/// Searches for a file with the same contents as a missing one.
fn search(lost: &ModelFile, folders: &[PathBuf]) -> Read {
    for path in folder::model_files(folders) {
        let is_it = |model: &Model| model.sha256() == lost.sha256;
        if let Some(model) = load(&path).ok().filter(is_it) {
            return Ok((path, model));
        }
    }
    let places: Vec<_> = folders
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let (name, places) = (lost.path.display(), places.join(" and "));
    Err(format!(
        "{name} is missing, and no file in {places} has the same contents"
    ))
}

fn load(path: &Path) -> Result<Model, String> {
    // Sessions store paths as text.
    if path.to_str().is_none() {
        return Err(format!("expected a Unicode path, found {}", path.display()));
    }
    // A malformed file may cause a panic.
    let loaded = catch_unwind(|| Model::load(path).map_err(|error| in_words(&error)));
    let loaded = loaded.unwrap_or_else(|_| {
        Err(format!(
            "not a usable model: {}: reading it caused a panic",
            path.display()
        ))
    });
    let model = loaded?;
    let factors: Vec<Factor> = (model.network().factors().iter())
        .map(|layout| layout.factor)
        .collect();
    for_an_engine(&factors).map_err(|why| format!("{}: {why}", path.display()))?;
    Ok(model)
}

/// Checks that an engine has knobs for the factors of a model.
fn for_an_engine(found: &[Factor]) -> Result<(), String> {
    let engines = Engine::WITH_NETWORK.map(Engine::factors);
    if engines.contains(&found) {
        return Ok(());
    }
    let names = |factors: &[Factor]| {
        let names: Vec<_> = factors.iter().map(|factor| factor.name()).collect();
        names.join(", ")
    };
    Err(format!(
        "expected a model of {}, found one of {}",
        engines.map(names).join(" or of "),
        names(found)
    ))
}

/// An error and its causes as text.
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

impl fmt::Debug for ModelStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.shared.inner.lock();
        f.debug_struct("ModelStore")
            .field("chosen", &inner.chosen)
            .field("note", &inner.note)
            .finish_non_exhaustive()
    }
}

/// The chosen model, saved with the plugin's state.
#[derive(Default)]
pub struct ModelChoice(pub Arc<ModelStore>);

impl PersistentField<'_, Option<ModelFile>> for ModelChoice {
    fn set(&self, file: Option<ModelFile>) {
        match file {
            // Most loaded states name the model that is already in use.
            Some(file) if self.0.chosen().as_ref() == Some(&file) && self.0.note().is_none() => {}
            Some(file) => {
                let path = file.path.clone();
                self.0.begin(Some(file), move || read(path));
            }
            None => self.0.use_built_in(),
        }
    }

    fn map<F, R>(&self, f: F) -> R
    where
        F: Fn(&Option<ModelFile>) -> R,
    {
        f(&self.0.chosen())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;
    use std::{env, fs, process};

    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn a_model_of_other_factors_is_refused_by_name() {
        for_an_engine(&[Factor::Harmony, Factor::Rhythm]).unwrap();
        for_an_engine(&[Factor::Timbre, Factor::Pitch, Factor::Variation]).unwrap();
        let why = for_an_engine(&[Factor::Timbre, Factor::Pitch]).unwrap_err();
        assert_eq!(
            why,
            "expected a model of harmony, rhythm or of timbre, pitch, variation, found one of timbre, pitch"
        );
    }

    #[test]
    fn a_model_plays_with_the_engine_that_it_is_for() {
        let asset = |name: &str| {
            let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets");
            assets.join(name)
        };
        let store = ModelStore::default();
        let playing = |engine| store.settled(engine).0.unwrap().sha256().to_owned();
        let built_in = Engine::WITH_NETWORK.map(playing);
        assert_ne!(built_in[0], built_in[1]);
        assert_eq!(playing(Engine::Split), built_in[0]);
        assert_eq!(playing(Engine::Envelope), built_in[1]);

        store.load(asset("timbre.safetensors"));
        assert_eq!(Engine::WITH_NETWORK.map(playing), built_in);
        assert_eq!(store.note(), None);
        assert_eq!(store.is_for_another(Engine::Timbre), None);
        assert_eq!(store.is_for_another(Engine::Network), Some(Engine::Timbre));
        assert!(!store.is_lost());
    }

    #[test]
    fn a_model_of_instruments_is_refused_by_what_it_is_for() {
        let path = env::temp_dir().join(format!("graft ïnstruments {}.safetensors", process::id()));
        let header = br#"{"__metadata__":{"graft-lord":"{}"}}"#;
        let length = (header.len() as u64).to_le_bytes();
        fs::write(&path, [&length[..], header].concat()).unwrap();
        let store = ModelStore::default();
        store.load(path.clone());
        store.settled(Engine::Network).0.unwrap();
        fs::remove_file(&path).unwrap();
        let note = store.note().unwrap();
        let name = path.display().to_string();
        for words in [
            name.as_str(),
            "expected a model that remixes, for the plugin",
            "found a model of instruments, for cargo xtask translate",
        ] {
            assert!(note.contains(words), "{note}");
        }
        assert_eq!(store.chosen(), None);
    }

    #[test]
    fn a_model_that_was_moved_is_found_by_its_contents() {
        let folder = env::temp_dir().join(format!("graft möved {}", process::id()));
        let moved = folder.join("elsewhere/renamed.safetensors");
        fs::create_dir_all(folder.join("elsewhere")).unwrap();
        fs::write(folder.join("text.safetensors"), "not a model").unwrap();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/graft.safetensors");
        fs::copy(&model, &moved).unwrap();
        let sha256 = Model::load(&model).unwrap().sha256().to_owned();
        let path = folder.join("mine.safetensors");
        let lost = ModelFile {
            path,
            sha256: sha256.clone(),
        };

        let store = Arc::new(ModelStore::default());
        ModelChoice(Arc::clone(&store)).set(Some(lost.clone()));
        let (_, version) = store.settled(Engine::Network);
        assert!(store.is_lost() && store.note().is_some());

        store.find(vec![folder.join("nowhere")]);
        assert_eq!(store.settled(Engine::Network).1, version);
        let note = store.note().unwrap();
        assert!(
            note.contains("mine.safetensors") && note.contains("nowhere"),
            "{note}"
        );
        assert_eq!(store.chosen(), Some(lost));

        store.find(vec![folder.clone()]);
        assert!(store.settled(Engine::Network).1 > version);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!((store.is_lost(), store.note()), (false, None));
        assert_eq!(
            store.chosen(),
            Some(ModelFile {
                path: moved,
                sha256
            })
        );
    }

    #[test]
    fn a_store_ends_with_its_threads() {
        let ended = Arc::new(AtomicBool::new(false));
        let store = ModelStore::default();
        store.begin(None, {
            let ended = Arc::clone(&ended);
            move || {
                thread::sleep(Duration::from_millis(200));
                ended.store(true, Ordering::Relaxed);
                Err("no model".to_owned())
            }
        });
        drop(store);
        assert!(ended.load(Ordering::Relaxed), "a load outlives its store");
    }

    #[test]
    fn a_load_without_a_thread_ends_the_wait_for_the_one_before() {
        let (go_on, wait) = unbounded::<()>();
        let store = ModelStore::default();
        store.begin(None, move || {
            // Blocks until the other end is dropped.
            let _dropped = wait.recv();
            Err("no model".to_owned())
        });
        thread::scope(|scope| {
            let (settled, is_settled) = unbounded();
            let store = &store;
            scope.spawn(move || settled.send(store.settled(Engine::Network).1));
            // Gives the waiter time to start; the test holds without it, too.
            thread::sleep(Duration::from_millis(100));
            let no_thread = thread::Builder::new().stack_size(usize::MAX / 4);
            store.begin_on(no_thread, None, || Err("no model".to_owned()));
            let settled = is_settled.recv_timeout(Duration::from_secs(5));
            drop(go_on);
            // Afterwards nobody waits any longer.
            store.use_built_in();
            assert!(settled.is_ok(), "the wait goes on");
            assert!(store.note().is_none());
        });
    }
}
