// @ts-check
// Tells how loud a page is now, without a worklet: an analyser beside each loudspeaker it opens.

(() => {
  /** @type {AnalyserNode[]} */
  const outlets = [];
  const connect = /** @type {any} */ (AudioNode.prototype.connect);
  AudioNode.prototype.connect = /** @this {AudioNode} @param {any[]} to @returns {any} */ function (
    ...to
  ) {
    if (to[0] instanceof AudioDestinationNode) {
      const analyser = new AnalyserNode(this.context, { fftSize: 8192 }); // the last 0.2 s
      connect.call(this, analyser);
      outlets.push(analyser);
    }
    return connect.apply(this, to);
  };

  Object.assign(window, {
    /** The peak of the last 0.2 s, from 0 to 1, of all loudspeakers. */
    loudness: () =>
      Math.max(
        0,
        ...outlets.map((analyser) => {
          const samples = new Float32Array(analyser.fftSize);
          analyser.getFloatTimeDomainData(samples);
          return samples.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0);
        }),
      ),
  });
})();
