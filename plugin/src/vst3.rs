//! The VST3 component: nice-plug's wrapper of the plugin, which learns in time whether the host renders offline.
//!
//! nice-plug passes on the process mode of the last but one `setupProcessing`, so a first render would be told that it runs
//! in real time. The component repeats each call.

use std::ffi::c_void;
use std::ptr;

use nice_plug::wrapper::setup_logger;
use nice_plug::wrapper::vst3::vst3::Steinberg::Vst::{
    BusDirection, BusInfo, CString, ChannelContext::IInfoListener,
    ChannelContext::IInfoListenerTrait, CtrlNumber, IAttributeList, IAudioProcessor,
    IAudioProcessorTrait, IComponent, IComponentHandler, IComponentTrait, IEditController,
    IEditControllerTrait, IMidiMapping, IMidiMappingTrait, INoteExpressionController,
    INoteExpressionControllerTrait, IProcessContextRequirements, IProcessContextRequirementsTrait,
    IUnitInfo, IUnitInfoTrait, IoMode, MediaType, NoteExpressionTypeID, NoteExpressionTypeInfo,
    NoteExpressionValue, ParamID, ParamValue, ParameterInfo, ProcessData, ProcessSetup,
    ProgramListID, ProgramListInfo, RoutingInfo, SpeakerArrangement, String128, TChar, UnitID,
    UnitInfo,
};
use nice_plug::wrapper::vst3::vst3::Steinberg::{
    FIDString, FUnknown, IBStream, IPlugView, IPluginBaseTrait, IPluginFactory, IPluginFactory2,
    IPluginFactory2Trait, IPluginFactory3, IPluginFactory3Trait, IPluginFactoryTrait, PClassInfo,
    PClassInfo2, PClassInfoW, PFactoryInfo, TBool, TUID, int16, int32, kInvalidArgument, kResultOk,
    tresult, uint32,
};
use nice_plug::wrapper::vst3::vst3::{Class, ComWrapper};
use nice_plug::wrapper::vst3::{PluginInfo, Wrapper};

use crate::Graft;

/// A plugin instance, as the host sees it.
struct Component {
    inner: Wrapper<Graft>,
}

impl Class for Component {
    type Interfaces = (
        IComponent,
        IEditController,
        IAudioProcessor,
        IMidiMapping,
        INoteExpressionController,
        IProcessContextRequirements,
        IUnitInfo,
        IInfoListener,
    );
}

/// Implements an interface by that of the wrapper, except for the methods after `own`.
macro_rules! forward {
    (
        $interface:ident:
        $(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*
        $(own $($own:item)+)?
    ) => {
        impl $interface for Component {
            $(
                unsafe fn $name(&self, $($argument: $type),*) -> $result {
                    // SAFETY: the host's arguments are passed on unchanged.
                    unsafe { $interface::$name(&self.inner, $($argument),*) }
                }
            )*
            $($($own)+)?
        }
    };
}

forward! { IPluginBaseTrait:
    fn initialize(context: *mut FUnknown) -> tresult;
    fn terminate() -> tresult;
}

forward! { IComponentTrait:
    fn getControllerClassId(class: *mut TUID) -> tresult;
    fn setIoMode(mode: IoMode) -> tresult;
    fn getBusCount(media: MediaType, direction: BusDirection) -> int32;
    fn getBusInfo(media: MediaType, direction: BusDirection, index: int32, bus: *mut BusInfo) -> tresult;
    fn getRoutingInfo(input: *mut RoutingInfo, output: *mut RoutingInfo) -> tresult;
    fn activateBus(media: MediaType, direction: BusDirection, index: int32, state: TBool) -> tresult;
    fn setActive(state: TBool) -> tresult;
    fn setState(state: *mut IBStream) -> tresult;
    fn getState(state: *mut IBStream) -> tresult;
}

forward! { IEditControllerTrait:
    fn setComponentState(state: *mut IBStream) -> tresult;
    fn setState(state: *mut IBStream) -> tresult;
    fn getState(state: *mut IBStream) -> tresult;
    fn getParameterCount() -> int32;
    fn getParameterInfo(index: int32, info: *mut ParameterInfo) -> tresult;
    fn getParamStringByValue(id: ParamID, value: ParamValue, text: *mut String128) -> tresult;
    fn getParamValueByString(id: ParamID, text: *mut TChar, value: *mut ParamValue) -> tresult;
    fn normalizedParamToPlain(id: ParamID, value: ParamValue) -> ParamValue;
    fn plainParamToNormalized(id: ParamID, value: ParamValue) -> ParamValue;
    fn getParamNormalized(id: ParamID) -> ParamValue;
    fn setParamNormalized(id: ParamID, value: ParamValue) -> tresult;
    fn setComponentHandler(handler: *mut IComponentHandler) -> tresult;
    fn createView(name: FIDString) -> *mut IPlugView;
}

forward! { IAudioProcessorTrait:
    fn setBusArrangements(
        inputs: *mut SpeakerArrangement,
        input_count: int32,
        outputs: *mut SpeakerArrangement,
        output_count: int32
    ) -> tresult;
    fn getBusArrangement(direction: BusDirection, index: int32, arrangement: *mut SpeakerArrangement) -> tresult;
    fn canProcessSampleSize(size: int32) -> tresult;
    fn getLatencySamples() -> uint32;
    fn setProcessing(state: TBool) -> tresult;
    fn process(data: *mut ProcessData) -> tresult;
    fn getTailSamples() -> uint32;
    own
    unsafe fn setupProcessing(&self, setup: *mut ProcessSetup) -> tresult {
        // The first call stores the process mode, the second one uses it.
        // SAFETY: as above; the call only stores the settings.
        unsafe {
            self.inner.setupProcessing(setup);
            self.inner.setupProcessing(setup)
        }
    }
}

forward! { IMidiMappingTrait:
    fn getMidiControllerAssignment(
        bus: int32,
        channel: int16,
        controller: CtrlNumber,
        id: *mut ParamID
    ) -> tresult;
}

forward! { INoteExpressionControllerTrait:
    fn getNoteExpressionCount(bus: int32, channel: int16) -> int32;
    fn getNoteExpressionInfo(
        bus: int32,
        channel: int16,
        index: int32,
        info: *mut NoteExpressionTypeInfo
    ) -> tresult;
    fn getNoteExpressionStringByValue(
        bus: int32,
        channel: int16,
        id: NoteExpressionTypeID,
        value: NoteExpressionValue,
        text: *mut String128
    ) -> tresult;
    fn getNoteExpressionValueByString(
        bus: int32,
        channel: int16,
        id: NoteExpressionTypeID,
        text: *const TChar,
        value: *mut NoteExpressionValue
    ) -> tresult;
}

forward! { IProcessContextRequirementsTrait:
    fn getProcessContextRequirements() -> uint32;
}

forward! { IUnitInfoTrait:
    fn getUnitCount() -> int32;
    fn getUnitInfo(index: int32, info: *mut UnitInfo) -> tresult;
    fn getProgramListCount() -> int32;
    fn getProgramListInfo(index: int32, info: *mut ProgramListInfo) -> tresult;
    fn getProgramName(list: ProgramListID, index: int32, name: *mut String128) -> tresult;
    fn getProgramInfo(
        list: ProgramListID,
        index: int32,
        attribute: CString,
        value: *mut String128
    ) -> tresult;
    fn hasProgramPitchNames(list: ProgramListID, index: int32) -> tresult;
    fn getProgramPitchName(
        list: ProgramListID,
        index: int32,
        pitch: int16,
        name: *mut String128
    ) -> tresult;
    fn getSelectedUnit() -> UnitID;
    fn selectUnit(unit: UnitID) -> tresult;
    fn getUnitByBus(
        media: MediaType,
        direction: BusDirection,
        bus: int32,
        channel: int32,
        unit: *mut UnitID
    ) -> tresult;
    fn setUnitProgramData(list_or_unit: int32, index: int32, data: *mut IBStream) -> tresult;
}

forward! { IInfoListenerTrait:
    fn setChannelContextInfos(list: *mut IAttributeList) -> tresult;
}

/// Creates components.
struct Factory {
    info: PluginInfo,
}

impl Class for Factory {
    type Interfaces = (IPluginFactory, IPluginFactory2, IPluginFactory3);
}

impl Factory {
    /// Describes the only class, or nothing if the host asks for another one.
    fn describe<T>(&self, index: int32, info: *mut T, describe: fn(&PluginInfo) -> T) -> tresult {
        if index != 0 || info.is_null() {
            return kInvalidArgument;
        }
        // SAFETY: the host provides room for the description.
        unsafe { ptr::write(info, describe(&self.info)) };
        kResultOk
    }
}

impl IPluginFactoryTrait for Factory {
    unsafe fn getFactoryInfo(&self, info: *mut PFactoryInfo) -> tresult {
        self.describe(0, info, PluginInfo::create_factory_info)
    }

    unsafe fn countClasses(&self) -> int32 {
        1
    }

    unsafe fn getClassInfo(&self, index: int32, info: *mut PClassInfo) -> tresult {
        self.describe(index, info, PluginInfo::create_class_info)
    }

    unsafe fn createInstance(
        &self,
        class: FIDString,
        interface: FIDString,
        object: *mut *mut c_void,
    ) -> tresult {
        if class.is_null() || interface.is_null() || object.is_null() {
            return kInvalidArgument;
        }
        // SAFETY: the host passes ids of 16 bytes and room for a pointer.
        unsafe {
            if *class.cast::<[u8; 16]>() != *self.info.cid {
                return kInvalidArgument;
            }
            let component = ComWrapper::new(Component {
                inner: Wrapper::new(),
            });
            let Some(unknown) = component.as_com_ref::<FUnknown>() else {
                return kInvalidArgument;
            };
            let unknown = unknown.as_ptr();
            ((*(*unknown).vtbl).queryInterface)(unknown, interface.cast::<TUID>(), object)
        }
    }
}

impl IPluginFactory2Trait for Factory {
    unsafe fn getClassInfo2(&self, index: int32, info: *mut PClassInfo2) -> tresult {
        self.describe(index, info, PluginInfo::create_class_info_2)
    }
}

impl IPluginFactory3Trait for Factory {
    unsafe fn getClassInfoUnicode(&self, index: int32, info: *mut PClassInfoW) -> tresult {
        self.describe(index, info, PluginInfo::create_class_info_unicode)
    }

    unsafe fn setHostContext(&self, _context: *mut FUnknown) -> tresult {
        kResultOk
    }
}

/// The entry point of VST3 hosts: a new factory, which the host releases.
#[unsafe(no_mangle)]
pub extern "system" fn GetPluginFactory() -> *mut c_void {
    let info = PluginInfo::for_plugin::<Graft>();
    let factory = ComWrapper::new(Factory { info }).to_com_ptr::<IPluginFactory>();
    factory.map_or(ptr::null_mut(), |factory| factory.into_raw().cast())
}

/// Called by hosts when they load the library.
#[unsafe(no_mangle)]
#[cfg(all(target_family = "unix", not(target_os = "macos")))]
pub extern "C" fn ModuleEntry(_library: *mut c_void) -> bool {
    setup_logger::<Graft>();
    true
}

/// Called by hosts before they unload the library.
#[unsafe(no_mangle)]
#[cfg(all(target_family = "unix", not(target_os = "macos")))]
pub extern "C" fn ModuleExit() -> bool {
    true
}

/// Called by hosts when they load the bundle.
#[unsafe(no_mangle)]
#[cfg(target_os = "macos")]
pub extern "C" fn bundleEntry(_bundle: *mut c_void) -> bool {
    setup_logger::<Graft>();
    true
}

/// Called by hosts before they unload the bundle.
#[unsafe(no_mangle)]
#[cfg(target_os = "macos")]
pub extern "C" fn bundleExit() -> bool {
    true
}

/// Called by hosts when they load the library.
#[unsafe(no_mangle)]
#[cfg(target_os = "windows")]
pub extern "system" fn InitDll() -> bool {
    setup_logger::<Graft>();
    true
}

/// Called by hosts before they unload the library.
#[unsafe(no_mangle)]
#[cfg(target_os = "windows")]
pub extern "system" fn ExitDll() -> bool {
    true
}
