//! A small VST3 host without a window: one instance of the plugin, step by step.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{ptr, slice, thread};

use anyhow::{Context, Result, ensure};
use vst3::Steinberg::Vst::{
    AudioBusBuffers, AudioBusBuffers__type0, IAudioProcessor, IAudioProcessorTrait, IComponent,
    IComponentHandler, IComponentHandlerTrait, IComponentTrait, IEditController,
    IEditControllerTrait, ParamID, ParamValue, ProcessData, ProcessModes_, ProcessSetup,
    RestartFlags_, SymbolicSampleSizes_,
};
use vst3::Steinberg::{
    IBStream, IBStream_::IStreamSeekMode_, IBStreamTrait, IPluginBaseTrait, IPluginFactory,
    IPluginFactoryTrait, TUID, int32, int64, kResultOk, tresult,
};
use vst3::{Class, ComPtr, ComWrapper, Interface};

use crate::session::Activation;

/// An instance that the caller activates, plays and deactivates. It runs on the caller's thread, except for the audio.
pub struct Vst3Session {
    component: ComPtr<IComponent>,
    processor: ComPtr<IAudioProcessor>,
    controller: ComPtr<IEditController>,
    host: ComWrapper<Host>,
    /// The settings while it is active.
    activation: Option<Activation>,
    requests_seen: usize,
}

impl Vst3Session {
    /// Creates an inactive instance of a factory's first class.
    ///
    /// # Errors
    ///
    /// If the factory is null, or the plugin cannot be created.
    ///
    /// # Safety
    ///
    /// `factory` is what the plugin's `GetPluginFactory` returned.
    pub unsafe fn new(factory: *mut c_void) -> Result<Self> {
        // SAFETY: by the caller's promise.
        let factory = unsafe { ComPtr::from_raw(factory.cast::<IPluginFactory>()) };
        let factory = factory.context("the library has no plugin factory")?;
        let mut info = MaybeUninit::uninit();
        let mut component = ptr::null_mut();
        // SAFETY: the plugin fills in the description and the pointer, as it says.
        let component = unsafe {
            done(factory.getClassInfo(0, info.as_mut_ptr()), "described")?;
            let class = info.assume_init().cid;
            let interface: TUID = IComponent::IID.map(|byte| byte as _);
            let created =
                factory.createInstance(class.as_ptr(), interface.as_ptr(), &raw mut component);
            done(created, "created")?;
            ComPtr::from_raw(component.cast::<IComponent>())
        };
        let component = component.context("the plugin has no component")?;
        let controller: ComPtr<IEditController> =
            component.cast().context("the plugin has no controller")?;
        let processor: ComPtr<IAudioProcessor> =
            component.cast().context("the plugin has no processor")?;
        let host = ComWrapper::new(Host::default());
        let handler = host
            .as_com_ref::<IComponentHandler>()
            .context("the host has no handler")?;
        // SAFETY: the plugin holds a reference to the handler until it is released.
        unsafe {
            done(component.initialize(ptr::null_mut()), "initialized")?;
            done(
                controller.setComponentHandler(handler.as_ptr()),
                "connected",
            )?;
        }
        Ok(Self {
            component,
            processor,
            controller,
            host,
            activation: None,
            requests_seen: 0,
        })
    }

    /// Prepares and activates the plugin and starts processing. Returns the reported latency.
    ///
    /// # Errors
    ///
    /// If it is active already, or refuses.
    pub fn activate(&mut self, activation: &Activation) -> Result<usize> {
        ensure!(self.activation.is_none(), "the plugin is active");
        let mut setup = ProcessSetup {
            processMode: mode(activation),
            symbolicSampleSize: SymbolicSampleSizes_::kSample32 as int32,
            maxSamplesPerBlock: activation.max_block_samples as int32,
            sampleRate: f64::from(activation.sample_rate_hz),
        };
        // SAFETY: the plugin only reads the settings.
        let prepared = unsafe { self.processor.setupProcessing(&raw mut setup) };
        done(prepared, "set up")?;
        // SAFETY: the calls have no pointers.
        let started = unsafe { [self.component.setActive(1), self.processor.setProcessing(1)] };
        for result in started {
            done(result, "activated")?;
        }
        self.activation = Some(*activation);
        // Activated, the plugin says that its latency changed, which the host reads anyway.
        self.requests_seen = self.requests();
        Ok(self.latency_samples())
    }

    /// Grants the plugin's request for a restart, with the same settings. Returns the reported latency.
    ///
    /// # Errors
    ///
    /// If it is not active, or refuses.
    pub fn restart(&mut self) -> Result<usize> {
        let activation = self.activation.context("the plugin is not active")?;
        self.deactivate();
        self.activate(&activation)
    }

    fn requests(&self) -> usize {
        self.host.requests.load(Ordering::Acquire)
    }

    /// Stops and deactivates the plugin, if it is active.
    pub fn deactivate(&mut self) {
        if self.activation.take().is_some() {
            // SAFETY: the calls have no pointers.
            unsafe {
                self.processor.setProcessing(0);
                self.component.setActive(0);
            }
        }
    }

    /// The reported latency.
    pub fn latency_samples(&self) -> usize {
        // SAFETY: the call has no arguments.
        unsafe { self.processor.getLatencySamples() as usize }
    }

    /// Whether the plugin requested a restart since it was activated. A request may take a moment to arrive.
    pub fn wants_restart(&self) -> bool {
        self.requests() > self.requests_seen
    }

    /// Sets a parameter of the inactive plugin, from 0 to 1.
    ///
    /// # Errors
    ///
    /// If there is no such parameter.
    pub fn set_parameter(&mut self, name: &str, value: f64) -> Result<()> {
        // SAFETY: the plugin fills in the descriptions, as it says.
        let id = unsafe {
            (0..self.controller.getParameterCount()).find_map(|index| {
                let mut info = MaybeUninit::uninit();
                let described = self.controller.getParameterInfo(index, info.as_mut_ptr());
                let info = (described == kResultOk).then(|| info.assume_init())?;
                let title = info.title.iter().take_while(|&&unit| unit != 0);
                let title: Vec<u16> = title.copied().collect();
                (String::from_utf16_lossy(&title) == name).then_some(info.id)
            })
        };
        let id = id.with_context(|| format!("no parameter \"{name}\""))?;
        // SAFETY: the call has no pointers.
        let set = unsafe { self.controller.setParamNormalized(id, value) };
        done(set, "set")
    }

    /// The plugin's state.
    ///
    /// # Errors
    ///
    /// If it cannot be saved.
    pub fn save_state(&mut self) -> Result<Vec<u8>> {
        let stream = ComWrapper::new(Stream::default());
        let pointer = stream.as_com_ref::<IBStream>().context("no stream")?;
        // SAFETY: the stream outlives the call.
        let saved = unsafe { self.component.getState(pointer.as_ptr()) };
        done(saved, "saved")?;
        Ok(stream.bytes.take())
    }

    /// Loads a state as hosts load a session: into the component, and then into the controller.
    ///
    /// # Errors
    ///
    /// If the plugin rejects it.
    pub fn load_state(&mut self, state: &[u8]) -> Result<()> {
        for is_controller in [false, true] {
            let stream = ComWrapper::new(Stream {
                bytes: RefCell::new(state.to_vec()),
                position: Cell::new(0),
            });
            let stream = stream.as_com_ref::<IBStream>().context("no stream")?;
            // SAFETY: the stream outlives the call.
            let loaded = unsafe {
                match is_controller {
                    false => self.component.setState(stream.as_ptr()),
                    true => self.controller.setComponentState(stream.as_ptr()),
                }
            };
            done(loaded, "loaded")?;
        }
        Ok(())
    }

    /// Processes stereo inputs of equal length, block by block, on a thread of its own.
    ///
    /// # Errors
    ///
    /// If the plugin is not active, or fails.
    pub fn process(
        &mut self,
        main: &[Vec<f32>; 2],
        sidechain: &[Vec<f32>; 2],
    ) -> Result<[Vec<f32>; 2]> {
        let activation = &self.activation.context("the plugin is not active")?;
        let processor = &self.processor;
        let audio = || {
            let mut out = [Vec::new(), Vec::new()];
            let length = main[0].len();
            for start in (0..length).step_by(activation.max_block_samples) {
                let end = (start + activation.max_block_samples).min(length);
                let block =
                    |audio: &[Vec<f32>; 2]| [0, 1].map(|side| audio[side][start..end].to_vec());
                let played = process(processor, activation, block(main), block(sidechain))?;
                for (out, played) in out.iter_mut().zip(played) {
                    out.extend(played);
                }
            }
            Ok(out)
        };
        thread::scope(|scope| {
            let audio_thread = scope.spawn(audio);
            audio_thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Vst3Session {
    fn drop(&mut self) {
        self.deactivate();
        // SAFETY: the plugin is inactive and lets go of the handler.
        unsafe {
            self.controller.setComponentHandler(ptr::null_mut());
            self.component.terminate();
        }
    }
}

fn mode(activation: &Activation) -> int32 {
    let mode = match activation.offline {
        true => ProcessModes_::kOffline,
        false => ProcessModes_::kRealtime,
    };
    mode as int32
}

/// Audio thread: processes a block.
fn process(
    processor: &ComPtr<IAudioProcessor>,
    activation: &Activation,
    mut main: [Vec<f32>; 2],
    mut sidechain: [Vec<f32>; 2],
) -> Result<[Vec<f32>; 2]> {
    let samples = main[0].len();
    let mut out = [vec![0.0; samples], vec![0.0; samples]];
    let pointers = |audio: &mut [Vec<f32>; 2]| audio.each_mut().map(|channel| channel.as_mut_ptr());
    let bus = |channels: &mut [*mut f32; 2]| AudioBusBuffers {
        numChannels: 2,
        silenceFlags: 0,
        __field0: AudioBusBuffers__type0 {
            channelBuffers32: channels.as_mut_ptr(),
        },
    };
    let [mut main, mut sidechain] = [&mut main, &mut sidechain].map(pointers);
    let mut output = pointers(&mut out);
    let mut inputs = [&mut main, &mut sidechain].map(bus);
    let mut outputs = [bus(&mut output)];
    let mut data = ProcessData {
        processMode: mode(activation),
        symbolicSampleSize: SymbolicSampleSizes_::kSample32 as int32,
        numSamples: samples as int32,
        numInputs: 2,
        numOutputs: 1,
        inputs: inputs.as_mut_ptr(),
        outputs: outputs.as_mut_ptr(),
        inputParameterChanges: ptr::null_mut(),
        outputParameterChanges: ptr::null_mut(),
        inputEvents: ptr::null_mut(),
        outputEvents: ptr::null_mut(),
        processContext: ptr::null_mut(),
    };
    // SAFETY: all buffers have the announced length and outlive the call.
    done(unsafe { processor.process(&raw mut data) }, "processed")?;
    Ok(out)
}

fn done(result: tresult, what: &str) -> Result<()> {
    ensure!(result == kResultOk, "the plugin cannot be {what}: {result}");
    Ok(())
}

/// The host side of the plugin. On Linux, requests come from a thread of the plugin framework.
#[derive(Default)]
struct Host {
    requests: AtomicUsize,
}

impl Class for Host {
    type Interfaces = (IComponentHandler,);
}

impl IComponentHandlerTrait for Host {
    unsafe fn beginEdit(&self, _id: ParamID) -> tresult {
        kResultOk
    }

    unsafe fn performEdit(&self, _id: ParamID, _value: ParamValue) -> tresult {
        kResultOk
    }

    unsafe fn endEdit(&self, _id: ParamID) -> tresult {
        kResultOk
    }

    unsafe fn restartComponent(&self, flags: int32) -> tresult {
        if flags & RestartFlags_::kLatencyChanged != 0 {
            self.requests.fetch_add(1, Ordering::AcqRel);
        }
        kResultOk
    }
}

/// A state in memory.
#[derive(Default)]
struct Stream {
    bytes: RefCell<Vec<u8>>,
    position: Cell<usize>,
}

impl Class for Stream {
    type Interfaces = (IBStream,);
}

impl IBStreamTrait for Stream {
    unsafe fn read(&self, buffer: *mut c_void, count: int32, read: *mut int32) -> tresult {
        let bytes = self.bytes.borrow();
        let rest = &bytes[self.position.get()..];
        let rest = &rest[..rest.len().min(count as usize)];
        // SAFETY: the plugin has room for `count` bytes.
        unsafe { ptr::copy_nonoverlapping(rest.as_ptr(), buffer.cast(), rest.len()) };
        self.position.set(self.position.get() + rest.len());
        tell(read, rest.len() as int32)
    }

    unsafe fn write(&self, buffer: *mut c_void, count: int32, written: *mut int32) -> tresult {
        // SAFETY: the plugin provides `count` bytes.
        let new = unsafe { slice::from_raw_parts(buffer.cast::<u8>(), count as usize) };
        self.bytes.borrow_mut().extend_from_slice(new);
        tell(written, count)
    }

    unsafe fn seek(&self, position: int64, mode: int32, result: *mut int64) -> tresult {
        let from = match mode {
            mode if mode == IStreamSeekMode_::kIBSeekSet as int32 => 0,
            mode if mode == IStreamSeekMode_::kIBSeekCur as int32 => self.position.get(),
            _ => self.bytes.borrow().len(),
        };
        self.position.set((from as int64 + position) as usize);
        tell(result, self.position.get() as int64)
    }

    unsafe fn tell(&self, position: *mut int64) -> tresult {
        tell(position, self.position.get() as int64)
    }
}

/// Writes a result that the plugin may not want.
fn tell<T>(to: *mut T, value: T) -> tresult {
    if !to.is_null() {
        // SAFETY: the plugin has room for the value.
        unsafe { ptr::write(to, value) };
    }
    kResultOk
}
