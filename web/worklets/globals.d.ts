// What an AudioWorklet's global scope has beyond what TypeScript's "dom" library declares.

interface AudioWorkletProcessor {
  readonly port: MessagePort;
}

declare const AudioWorkletProcessor: {
  prototype: AudioWorkletProcessor;
  new (options?: unknown): AudioWorkletProcessor;
};

declare function registerProcessor(name: string, processor: unknown): void;

/** Hz of the context. */
declare const sampleRate: number;
/** Seconds of the context at the beginning of the block that is being rendered. */
declare const currentTime: number;
