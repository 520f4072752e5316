//! Loads the plugin and queries its properties.

use std::cell::Cell;
use std::env;
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use anyhow::{Context, Result, bail, ensure};
use clack_extensions::audio_ports_config::{AudioPortsConfigBuffer, PluginAudioPortsConfig};
use clack_extensions::gui::{GuiSize, HostGui, HostGuiImpl};
use clack_extensions::latency::{HostLatency, HostLatencyImpl};
use clack_extensions::params::{ParamInfoBuffer, ParamInfoFlags, PluginParams};
use clack_extensions::state::PluginState;
use clack_host::events::Pckn;
use clack_host::events::event_types::ParamValueEvent;
use clack_host::prelude::*;
use clack_host::utils::ClapId;

/// A loaded plugin library.
pub struct Plugin {
    entry: PluginEntry,
    id: CString,
    host: HostInfo,
}

/// A parameter as the host sees it, with values in the host's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its id in sessions and automation.
    pub id: u32,
    /// Display name.
    pub name: String,
    /// Minimum value.
    pub min: f64,
    /// Maximum value.
    pub max: f64,
    /// Default value.
    pub default: f64,
    /// Whether it only takes whole numbers.
    pub is_stepped: bool,
    /// Whether the host may automate it.
    pub is_automatable: bool,
    /// The current value.
    pub value: f64,
    /// The current value as text.
    pub text: String,
}

impl Parameter {
    /// Whether it has two steps, with any texts.
    fn is_switch(&self) -> bool {
        self.is_stepped && self.max - self.min == 1.0
    }
}

/// The plugin library that cargo built for the running test.
///
/// # Errors
///
/// If it is not next to the test binary.
pub fn built_library() -> Result<PathBuf> {
    let name = format!(
        "{}graft{}",
        env::consts::DLL_PREFIX,
        env::consts::DLL_SUFFIX
    );
    let program = env::current_exe().context("where is the running program?")?;
    let beside = program.with_file_name(&name);
    ensure!(
        beside.exists(),
        "no plugin library {}; `cargo test` builds it beside the test",
        beside.display()
    );
    Ok(beside)
}

impl Plugin {
    /// Loads a `.clap` file, or on macOS the library in a `.clap` bundle.
    ///
    /// # Errors
    ///
    /// If there is no such file, or no plugin in it.
    pub fn load(path: &Path) -> Result<Self> {
        let library = library_of(path)?;
        // SAFETY: loading a plugin runs its code, as the caller requests.
        let entry = unsafe { PluginEntry::load(&library) }
            .with_context(|| format!("{} is not a CLAP plugin", library.display()))?;
        Self::from_entry(entry)
    }

    /// Loads the plugin of an entry point, such as one that is linked into the program.
    ///
    /// # Errors
    ///
    /// If it has no plugin.
    pub fn from_entry(entry: PluginEntry) -> Result<Self> {
        let factory = entry
            .get_plugin_factory()
            .context("the library has no plugin factory")?;
        let descriptor = factory
            .plugin_descriptor(0)
            .context("the library has no plugin")?;
        let id = descriptor.id().context("the plugin has no id")?.to_owned();
        let version = env!("CARGO_PKG_VERSION");
        let host = HostInfo::new("Graft headless host", "Graft", "", version)?;
        Ok(Self { entry, id, host })
    }

    /// The plugin's parameters in a new instance.
    ///
    /// # Errors
    ///
    /// If the plugin cannot be created, or has no parameters.
    pub fn parameters(&self) -> Result<Vec<Parameter>> {
        Instance::new(self)?.parameters()
    }

    /// Names of the channel layouts that the plugin offers.
    ///
    /// # Errors
    ///
    /// If the plugin cannot be created, or offers no choice.
    pub fn layouts(&self) -> Result<Vec<String>> {
        Ok(Instance::new(self)?
            .layouts()?
            .into_iter()
            .map(|(_, name)| name)
            .collect())
    }
}

fn library_of(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_owned());
    }
    let binary = path
        .file_stem()
        .map(|stem| path.join("Contents/MacOS").join(stem))
        .filter(|binary| binary.is_file());
    binary.with_context(|| format!("no plugin at {}", path.display()))
}

/// One instance of the plugin, on the main thread.
pub(crate) struct Instance {
    pub(crate) inner: PluginInstance<Headless>,
}

impl Instance {
    pub(crate) fn new(plugin: &Plugin) -> Result<Self> {
        let inner = PluginInstance::new(
            |_| Shared::default(),
            |_| MainThread::default(),
            &plugin.entry,
            &plugin.id,
            &plugin.host,
        )
        .context("the plugin cannot be instantiated")?;
        Ok(Self { inner })
    }

    pub(crate) fn extension<E>(&self, name: &str) -> Result<E>
    where
        E: clack_host::extensions::Extension<
                ExtensionSide = clack_host::extensions::PluginExtensionSide,
            >,
    {
        self.inner
            .plugin_shared_handle()
            .get_extension::<E>()
            .with_context(|| format!("the plugin has no {name} extension"))
    }

    /// All parameters with their current values.
    pub(crate) fn parameters(&mut self) -> Result<Vec<Parameter>> {
        let params = self.extension::<PluginParams>("params")?;
        let handle = self.inner.plugin_handle();
        let mut buffer = ParamInfoBuffer::new();
        (0..params.count(&handle))
            .map(|index| {
                let info = params
                    .get_info(&handle, index, &mut buffer)
                    .with_context(|| format!("parameter {index} has no description"))?;
                let name = String::from_utf8_lossy(info.name).into_owned();
                let value = params
                    .get_value(&handle, info.id)
                    .with_context(|| format!("the parameter \"{name}\" has no value"))?;
                let mut text = [0; 256];
                let text = params
                    .value_to_text(&handle, info.id, value, &mut text)
                    .with_context(|| format!("the parameter \"{name}\" has no text"))?;
                Ok(Parameter {
                    id: info.id.get(),
                    name,
                    min: info.min_value,
                    max: info.max_value,
                    default: info.default_value,
                    is_stepped: info.flags.contains(ParamInfoFlags::IS_STEPPED),
                    is_automatable: info.flags.contains(ParamInfoFlags::IS_AUTOMATABLE),
                    value,
                    text: String::from_utf8_lossy(text).into_owned(),
                })
            })
            .collect()
    }

    /// The id of the parameter called `name`, and the host's value for `value` in the user's units.
    pub(crate) fn parameter(&mut self, name: &str, value: f64) -> Result<(ClapId, f64)> {
        let listed = self.parameters()?;
        let Some(parameter) = listed.iter().find(|listed| listed.name == name) else {
            let names: Vec<_> = listed.iter().map(|listed| listed.name.as_str()).collect();
            bail!(
                "no parameter \"{name}\"; the plugin has {}",
                names.join(", ")
            );
        };
        let id = ClapId::new(parameter.id);
        if parameter.is_switch() {
            return Ok((id, value));
        }
        let text = CString::new(value.to_string())?;
        let host_value = self
            .extension::<PluginParams>("params")?
            .text_to_value(&self.inner.plugin_handle(), id, &text)
            // The steps of a choice have words as text; they are numbered from 0.
            .or(parameter.is_stepped.then_some(value))
            .with_context(|| format!("the parameter \"{name}\" does not take {value}"))?;
        Ok((id, host_value))
    }

    /// Sets a parameter of the inactive plugin, as text.
    pub(crate) fn set_parameter_text(&mut self, name: &str, text: &str) -> Result<()> {
        let listed = self.parameters()?;
        let parameter = listed.iter().find(|listed| listed.name == name);
        let parameter = parameter.with_context(|| format!("no parameter \"{name}\""))?;
        let id = ClapId::new(parameter.id);
        let value = self
            .extension::<PluginParams>("params")?
            .text_to_value(&self.inner.plugin_handle(), id, &CString::new(text)?)
            .with_context(|| format!("the parameter \"{name}\" does not take {text}"))?;
        self.flush(id, value)
    }

    /// Sets a parameter of the inactive plugin.
    pub(crate) fn set_parameter(&mut self, name: &str, value: f64) -> Result<()> {
        let (id, value) = self.parameter(name, value)?;
        self.flush(id, value)
    }

    fn flush(&mut self, id: ClapId, value: f64) -> Result<()> {
        let mut events = EventBuffer::with_capacity(1);
        events.push(&ParamValueEvent::new(0, id, Pckn::match_all(), value));
        let params = self.extension::<PluginParams>("params")?;
        let mut handle = self
            .inner
            .inactive_plugin_handle()
            .context("the plugin is active")?;
        params.flush(&mut handle, &events.as_input(), &mut OutputEvents::void());
        Ok(())
    }

    /// How many times the plugin requested a restart.
    pub(crate) fn restart_requests(&self) -> usize {
        self.inner
            .access_shared_handler(|shared: &Shared| shared.restarts.load(Ordering::Acquire))
    }

    /// How many times the plugin announced another latency.
    pub(crate) fn latency_changes(&self) -> usize {
        self.inner
            .access_handler(|main: &MainThread| main.latency_changes.get())
    }

    /// The size that the editor requested since the last call.
    #[cfg(target_os = "linux")]
    pub(crate) fn take_wanted_size(&self) -> Option<GuiSize> {
        let packed = self
            .inner
            .access_shared_handler(|shared: &Shared| shared.wanted_size.swap(0, Ordering::AcqRel));
        (packed != 0).then(|| GuiSize::unpack_from_u64(packed))
    }

    /// Whether the editor closed by itself.
    #[cfg(target_os = "linux")]
    pub(crate) fn editor_closed(&self) -> bool {
        self.inner
            .access_shared_handler(|shared: &Shared| shared.editor_closed.load(Ordering::Acquire))
    }

    fn layouts(&mut self) -> Result<Vec<(ClapId, String)>> {
        let configs = self.extension::<PluginAudioPortsConfig>("audio-ports-config")?;
        let handle = self.inner.plugin_handle();
        let mut buffer = AudioPortsConfigBuffer::new();
        (0..configs.count(&handle))
            .map(|index| {
                let config = configs
                    .get(&handle, index, &mut buffer)
                    .with_context(|| format!("layout {index} has no description"))?;
                Ok((config.id, String::from_utf8_lossy(config.name).into_owned()))
            })
            .collect()
    }

    /// Chooses the layout called `name`.
    pub(crate) fn select_layout(&mut self, name: &str) -> Result<()> {
        let layouts = self.layouts()?;
        let (id, _) = layouts
            .iter()
            .find(|(_, layout)| layout == name)
            .with_context(|| format!("the plugin has no layout \"{name}\", only {layouts:?}"))?;
        self.extension::<PluginAudioPortsConfig>("audio-ports-config")?
            .select(&self.inner.plugin_handle(), *id)
            .with_context(|| format!("the plugin refuses the layout \"{name}\""))
    }

    pub(crate) fn load_state(&mut self, state: &[u8]) -> Result<()> {
        self.extension::<PluginState>("state")?
            .load(&self.inner.plugin_handle(), &mut &state[..])
            .context("the plugin refuses the state")?;
        self.run_callbacks();
        Ok(())
    }

    pub(crate) fn save_state(&mut self) -> Result<Vec<u8>> {
        let mut state = Vec::new();
        self.extension::<PluginState>("state")?
            .save(&self.inner.plugin_handle(), &mut state)
            .context("the plugin cannot save its state")?;
        Ok(state)
    }

    /// Runs the plugin's pending callbacks on the main thread.
    pub(crate) fn run_callbacks(&mut self) {
        let take_request = |shared: &Shared| shared.callback.swap(false, Ordering::AcqRel);
        while self.inner.access_shared_handler(take_request) {
            self.inner.call_on_main_thread_callback();
        }
    }
}

/// The host side of the plugin, with hardly any features.
pub(crate) struct Headless;

#[derive(Default)]
pub(crate) struct Shared {
    callback: AtomicBool,
    restarts: AtomicUsize,
    /// The size that the editor requested last, packed; 0 for none.
    wanted_size: AtomicU64,
    editor_closed: AtomicBool,
}

impl SharedHandler<'_> for Shared {
    fn request_restart(&self) {
        self.restarts.fetch_add(1, Ordering::AcqRel);
    }

    fn request_process(&self) {}

    fn request_callback(&self) {
        self.callback.store(true, Ordering::Release);
    }
}

#[derive(Default)]
pub(crate) struct MainThread {
    latency_changes: Cell<usize>,
}

impl MainThreadHandler<'_> for MainThread {}

impl HostLatencyImpl for MainThread {
    fn changed(&self) {
        self.latency_changes.set(self.latency_changes.get() + 1);
    }
}

impl HostGuiImpl for Shared {
    fn resize_hints_changed(&self) {}

    fn request_resize(&self, new_size: GuiSize) -> Result<(), HostError> {
        self.wanted_size
            .store(new_size.pack_to_u64(), Ordering::Release);
        Ok(())
    }

    fn request_show(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn request_hide(&self) -> Result<(), HostError> {
        Ok(())
    }

    fn closed(&self, _was_destroyed: bool) {
        self.editor_closed.store(true, Ordering::Release);
    }
}

impl HostHandlers for Headless {
    type Shared<'a> = Shared;
    type MainThread<'a> = MainThread;
    type AudioProcessor<'a> = ();

    fn declare_extensions(builder: &mut HostExtensions<Self>, _shared: &Self::Shared<'_>) {
        builder.register::<HostGui>();
        builder.register::<HostLatency>();
    }
}
