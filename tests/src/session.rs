//! A host session with one instance of the plugin, step by step.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
#[cfg(target_os = "linux")]
use clack_extensions::gui::{GuiApiType, GuiConfiguration, GuiSize, PluginGui};
use clack_extensions::latency::PluginLatency;
use clack_extensions::render::{PluginRender, RenderMode};
use clack_host::events::Pckn;
use clack_host::events::UnknownEvent;
use clack_host::events::event_types::{ParamValueEvent, TransportEvent};
use clack_host::events::spaces::CoreEventSpace;
use clack_host::prelude::*;
use clack_host::process::StartedPluginAudioProcessor;
use clack_host::utils::ClapId;

#[cfg(target_os = "linux")]
use crate::desktop::HostWindow;
use crate::plugin::{Headless, Instance, Parameter, Plugin};

/// An instance that the caller activates, plays and deactivates. Everything runs on the caller's thread.
pub struct Session {
    instance: Instance,
    processor: Option<StartedPluginAudioProcessor<Headless>>,
    /// Settings of the last activation.
    activation: Option<Activation>,
    restarts_seen: usize,
    position_samples: u64,
    names: HashMap<u32, String>,
    /// Parameter changes by the plugin itself.
    events: Vec<ParameterEvent>,
}

/// An event from the plugin about a parameter that the user changes in the editor.
#[derive(Clone, Debug, PartialEq)]
pub enum ParameterEvent {
    /// A gesture begins on the parameter of this name.
    Begin(String),
    /// Its new value, in the host's units.
    Value(String, f64),
    /// The gesture ends.
    End(String),
}

/// Settings for the activation of a [`Session`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Activation {
    /// Sample rate of all audio.
    pub sample_rate_hz: u32,
    /// The longest block.
    pub max_block_samples: usize,
    /// Whether the host renders offline.
    pub offline: bool,
}

/// A block: stereo in and out.
pub struct Block<'a> {
    /// The main input.
    pub main: [&'a [f32]; 2],
    /// The sidechain.
    pub sidechain: [&'a [f32]; 2],
    /// Parameter changes in order of time: sample in the block, name and value.
    pub events: &'a [(usize, String, f64)],
    /// The host's transport.
    pub transport: Option<TransportEvent>,
}

impl Session {
    /// Creates an inactive instance with stereo ports.
    ///
    /// # Errors
    ///
    /// If the plugin cannot be created.
    pub fn new(plugin: &Plugin) -> Result<Self> {
        let mut instance = Instance::new(plugin)?;
        instance.select_layout("Stereo")?;
        let listed = instance.parameters()?.into_iter();
        let names = listed.map(|p| (p.id, p.name)).collect();
        Ok(Self {
            names,
            events: Vec::new(),
            instance,
            processor: None,
            activation: None,
            restarts_seen: 0,
            position_samples: 0,
        })
    }

    /// Activates the plugin and starts processing. Returns the reported latency.
    ///
    /// # Errors
    ///
    /// If it is active already, or refuses.
    pub fn activate(&mut self, activation: &Activation) -> Result<usize> {
        let latency_samples = self.start(activation)?;
        // The plugin requests another restart if the latency changed; this activation is that restart.
        self.restarts_seen = self.instance.restart_requests();
        Ok(latency_samples)
    }

    /// Grants the plugin's request for a restart, with the settings of the last activation. Afterwards
    /// [`Self::wants_restart`] says whether it has made another one meanwhile. Returns the reported latency.
    ///
    /// # Errors
    ///
    /// If it was never activated, or refuses.
    pub fn restart(&mut self) -> Result<usize> {
        let activation = self.activation.context("the plugin was never active")?;
        self.restarts_seen = self.instance.restart_requests();
        self.deactivate();
        self.start(&activation)
    }

    fn start(&mut self, activation: &Activation) -> Result<usize> {
        ensure!(self.processor.is_none(), "the plugin is active");
        let mode = match activation.offline {
            true => RenderMode::Offline,
            false => RenderMode::Realtime,
        };
        self.instance
            .extension::<PluginRender>("render")?
            .set(&self.instance.inner.plugin_handle(), mode)
            .context("the plugin refuses the render mode")?;
        let configuration = PluginAudioConfiguration {
            sample_rate: f64::from(activation.sample_rate_hz),
            min_frames_count: 1,
            max_frames_count: activation.max_block_samples as u32,
        };
        let processor = self
            .instance
            .inner
            .activate(|_, _| (), configuration)
            .context("the plugin cannot be activated")?;
        self.instance.run_callbacks();
        self.activation = Some(*activation);
        let started = processor
            .start_processing()
            .map_err(|_| anyhow::anyhow!("the plugin cannot start processing"))?;
        self.processor = Some(started);
        let latency = self.instance.extension::<PluginLatency>("latency")?;
        Ok(latency.get(&self.instance.inner.plugin_handle()) as usize)
    }

    /// Stops and deactivates the plugin, if it is active.
    pub fn deactivate(&mut self) {
        if let Some(processor) = self.processor.take() {
            self.instance.inner.deactivate(processor.stop_processing());
            self.instance.run_callbacks();
        }
    }

    /// Sets a parameter of the inactive plugin, as text.
    ///
    /// # Errors
    ///
    /// If there is no such parameter, or the text is invalid.
    pub fn set_parameter_text(&mut self, name: &str, text: &str) -> Result<()> {
        self.instance.set_parameter_text(name, text)
    }

    /// Sets a parameter of the inactive plugin.
    ///
    /// # Errors
    ///
    /// If it is active, or has no such parameter.
    pub fn set_parameter(&mut self, name: &str, value: f64) -> Result<()> {
        self.instance.set_parameter(name, value)
    }

    /// All parameters with their current values.
    ///
    /// # Errors
    ///
    /// If the plugin does not report them.
    pub fn parameters(&mut self) -> Result<Vec<Parameter>> {
        self.instance.parameters()
    }

    /// Whether the plugin requested a restart since it was activated.
    pub fn wants_restart(&self) -> bool {
        self.instance.restart_requests() > self.restarts_seen
    }

    /// How many times the plugin announced another latency.
    pub fn latency_changes(&self) -> usize {
        self.instance.latency_changes()
    }

    /// Resets the active plugin.
    pub fn reset(&mut self) {
        if let Some(processor) = &mut self.processor {
            processor.reset();
        }
    }

    /// Processes a block. `watch` measures `process`, and must call its argument.
    ///
    /// # Errors
    ///
    /// If the plugin is not active, or fails.
    pub fn process(
        &mut self,
        block: &Block,
        watch: impl FnOnce(&mut dyn FnMut()),
    ) -> Result<[Vec<f32>; 2]> {
        let mut events = EventBuffer::with_capacity(block.events.len());
        for (time, name, value) in block.events {
            let (id, value) = self.instance.parameter(name, *value)?;
            events.push(&ParamValueEvent::new(
                *time as u32,
                id,
                Pckn::match_all(),
                value,
            ));
        }
        let samples = block.main[0].len();
        let mut main = block.main.map(<[f32]>::to_vec);
        let mut sidechain = block.sidechain.map(<[f32]>::to_vec);
        let mut out = [vec![0.0; samples], vec![0.0; samples]];
        let processor = self
            .processor
            .as_mut()
            .context("the plugin is not active")?;
        let mut in_ports = AudioPorts::with_capacity(4, 2);
        let mut out_ports = AudioPorts::with_capacity(2, 1);
        let inputs = in_ports.with_input_buffers([&mut main, &mut sidechain].map(|port| {
            AudioPortBuffer {
                latency: 0,
                channels: AudioPortBufferType::f32_input_only(
                    port.iter_mut()
                        .map(|channel| InputChannel::variable(&mut channel[..])),
                ),
            }
        }));
        let mut outputs = out_ports.with_output_buffers([AudioPortBuffer {
            latency: 0,
            channels: AudioPortBufferType::f32_output_only(
                out.iter_mut().map(|channel| &mut channel[..]),
            ),
        }]);
        let in_events = events.as_input();
        let mut out_buffer = EventBuffer::new();
        let mut out_events = out_buffer.as_output();
        let mut result = None;
        watch(&mut || {
            result = Some(processor.process(
                &inputs,
                &mut outputs,
                &in_events,
                &mut out_events,
                Some(self.position_samples),
                block.transport.as_ref(),
            ));
        });
        result
            .context("the block was not processed")?
            .context("the plugin failed")?;
        self.position_samples += samples as u64;
        let told = out_buffer.iter().filter_map(|event| self.told(event));
        let told: Vec<_> = told.collect();
        self.events.extend(told);
        self.instance.run_callbacks();
        Ok(out)
    }

    /// Parameter changes by the plugin itself since the last call.
    pub fn take_events(&mut self) -> Vec<ParameterEvent> {
        std::mem::take(&mut self.events)
    }

    fn told(&self, event: &UnknownEvent) -> Option<ParameterEvent> {
        let name = |id: Option<ClapId>| self.names.get(&id?.get()).cloned();
        match event.as_core_event()? {
            CoreEventSpace::ParamGestureBegin(begin) => {
                name(begin.param_id()).map(ParameterEvent::Begin)
            }
            CoreEventSpace::ParamValue(value) => {
                let name = name(value.param_id())?;
                Some(ParameterEvent::Value(name, value.value()))
            }
            CoreEventSpace::ParamGestureEnd(end) => name(end.param_id()).map(ParameterEvent::End),
            _ => None,
        }
    }

    /// Makes the plugin's editor without a parent window and returns its size in pixels.
    ///
    /// # Errors
    ///
    /// If the plugin has no editor, or refuses, as it does without a display.
    #[cfg(target_os = "linux")]
    pub fn create_editor(&mut self) -> Result<(u32, u32)> {
        let gui = self.instance.extension::<PluginGui>("gui")?;
        let handle = self.instance.inner.plugin_handle();
        let configuration = GuiConfiguration {
            api_type: GuiApiType::X11,
            is_floating: false,
        };
        gui.create(&handle, configuration)?;
        let size = gui.get_size(&handle).context("the editor has no size")?;
        Ok((size.width, size.height))
    }

    /// Opens the plugin's editor in a window, which is resized to the editor.
    ///
    /// # Errors
    ///
    /// Those of [`Self::create_editor`], or if the display is gone.
    #[cfg(target_os = "linux")]
    pub fn open_editor(&mut self, window: &mut HostWindow) -> Result<()> {
        use clack_extensions::gui::Window;
        let (width, height) = self.create_editor()?;
        window.resize(width as u16, height as u16)?;
        let gui = self.instance.extension::<PluginGui>("gui")?;
        let handle = self.instance.inner.plugin_handle();
        let parent = Window::from_x11_handle(u64::from(window.id()));
        // SAFETY: the window exists until the editor is closed, or the display is gone.
        unsafe { gui.set_parent(&handle, parent)? };
        gui.show(&handle)?;
        Ok(())
    }

    /// Closes the editor.
    ///
    /// # Errors
    ///
    /// If the plugin has none.
    #[cfg(target_os = "linux")]
    pub fn close_editor(&mut self) -> Result<()> {
        let gui = self.instance.extension::<PluginGui>("gui")?;
        gui.destroy(&self.instance.inner.plugin_handle());
        Ok(())
    }

    /// Whether the editor closed by itself, which is a fault.
    #[cfg(target_os = "linux")]
    pub fn editor_closed_itself(&self) -> bool {
        self.instance.editor_closed()
    }

    /// Does what a host does regularly for an open editor: runs its main-thread requests and applies its size.
    ///
    /// # Errors
    ///
    /// If the display is gone.
    #[cfg(target_os = "linux")]
    pub fn attend_editor(&mut self, window: &mut HostWindow) -> Result<()> {
        self.instance.run_callbacks();
        if let Some(size) = self.instance.take_wanted_size() {
            window.resize(size.width as u16, size.height as u16)?;
        }
        Ok(())
    }

    /// The nearest size in pixels that the editor accepts.
    ///
    /// # Errors
    ///
    /// If the plugin has no editor open.
    #[cfg(target_os = "linux")]
    pub fn fitting_size(&mut self, (width, height): (u32, u32)) -> Result<(u32, u32)> {
        let gui = self.instance.extension::<PluginGui>("gui")?;
        let handle = self.instance.inner.plugin_handle();
        let size = gui
            .adjust_size(&handle, GuiSize { width, height })
            .context("the editor takes no other size")?;
        Ok((size.width, size.height))
    }

    /// Resizes the window and the editor in it, in pixels, whether the size fits or not.
    ///
    /// # Errors
    ///
    /// If the plugin refuses.
    #[cfg(target_os = "linux")]
    pub fn resize_editor(
        &mut self,
        window: &mut HostWindow,
        (width, height): (u32, u32),
    ) -> Result<()> {
        let gui = self.instance.extension::<PluginGui>("gui")?;
        window.resize(width as u16, height as u16)?;
        let size = GuiSize { width, height };
        Ok(gui.set_size(&self.instance.inner.plugin_handle(), size)?)
    }

    /// The plugin's state.
    ///
    /// # Errors
    ///
    /// If it cannot be saved.
    pub fn save_state(&mut self) -> Result<Vec<u8>> {
        self.instance.save_state()
    }

    /// Loads a state.
    ///
    /// # Errors
    ///
    /// If the plugin rejects it.
    pub fn load_state(&mut self, state: &[u8]) -> Result<()> {
        self.instance.load_state(state)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.deactivate();
    }
}
