// A worklet's global scope for tests, and signals to judge it by.

let loads = 0;

/** A processor as a browser would make it; `posted` are copies of what it sent to the page. */
export async function loadProcessor(name, rate, processorOptions) {
  let Processor;
  const posted = [];
  Object.assign(globalThis, {
    sampleRate: rate,
    currentTime: 0,
    AudioWorkletProcessor: class {
      port = { onmessage: null, postMessage: (message) => posted.push(structuredClone(message)) };
    },
    registerProcessor: (_name, made) => (Processor = made),
  });
  loads += 1; // a module is evaluated once for each address
  await import(`../worklets/${name}.js?${loads}`);
  return { processor: new Processor({ processorOptions }), posted };
}

export function sine(hertz, rate, seconds, amplitude) {
  const step = (2 * Math.PI * hertz) / rate;
  return Float32Array.from({ length: seconds * rate }, (_, k) => amplitude * Math.sin(step * k));
}

/** The sine of that frequency that fits best, and what is left without it. */
export function amplitudeAt(signal, hertz, rate) {
  const step = (2 * Math.PI * hertz) / rate;
  let [cc, ss, cs, xc, xs] = [0, 0, 0, 0, 0];
  signal.forEach((x, k) => {
    const [c, s] = [Math.cos(step * k), Math.sin(step * k)];
    cc += c * c;
    ss += s * s;
    cs += c * s;
    xc += x * c;
    xs += x * s;
  });
  const determinant = cc * ss - cs * cs;
  const a = (xc * ss - xs * cs) / determinant;
  const b = (xs * cc - xc * cs) / determinant;
  let rest = 0;
  signal.forEach((x, k) => {
    rest += (x - a * Math.cos(step * k) - b * Math.sin(step * k)) ** 2;
  });
  return { amplitude: Math.hypot(a, b), restRms: Math.sqrt(rest / signal.length) };
}
