/* Stands for the header that menuconfig makes: what main/Kconfig.projbuild has as defaults; glue.sh
 * gives the variants with -D.  As there, an option that is off is not defined. */
#pragma once

#define CONFIG_PM_ENABLE 1

#define CONFIG_LISTENAI_SERVER_URI "ws://192.168.1.100:9400/"
#define CONFIG_LISTENAI_API_KEY ""
#define CONFIG_LISTENAI_MIC_SCK 26
#define CONFIG_LISTENAI_MIC_WS 25
#define CONFIG_LISTENAI_MIC_SD 33
#define CONFIG_LISTENAI_MIC_GAIN 4
#define CONFIG_LISTENAI_SPK_SCK 14
#define CONFIG_LISTENAI_SPK_WS 27
#define CONFIG_LISTENAI_SPK_SD 12
#define CONFIG_LISTENAI_BUTTON 0
#define CONFIG_LISTENAI_BUTTON_HOLD_SECONDS 5
#ifndef CONFIG_LISTENAI_LED
#define CONFIG_LISTENAI_LED 2
#endif
#define CONFIG_LISTENAI_VOLUME 80
#if CONFIG_LISTENAI_OTA
#define CONFIG_LISTENAI_OTA_URL "https://updates.example/listenai.bin"
#define CONFIG_LISTENAI_OTA_CONFIRM_SECONDS 300
#endif
